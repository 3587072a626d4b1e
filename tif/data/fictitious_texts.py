"""The word lists and wordings of `fictitious.py`. All of it is our own; none of the invented people exist."""


def _pool(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(";"))


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left, _, right in (part.partition("=") for part in _pool(text)))


# Several names and places are not ASCII, and "İ" grows when lower-cased: offsets have to survive that.
FIRST_NAMES = _pool("""Łucja; Anneke; Björn; Çağla; Dagny; Emeka; Fiadh; Gaspar; Hisako; Ioana; Joaquín; Kwabena;
    Leonie; Mirela; Nadir; Oluchi; Pádraig; Quirin; Rosalba; Søren; Tamsin; Ulrike; Vasil; Wanjiru; Ximena; Yusra;
    Zoltán; Amaru; Beatrix; Cosmin; Delphine; Eirik; Farida; Gunnar; Hoang; Ilse; Jamila; Kerttu; Lorcan; Małgorzata;
    Noor; Orsolya""")
SURNAMES = _pool("""Abendrot; Brânzescu; Çelikbaş; Drummidge; Eskelund; Fairbourne; Grzybek; Hallowmere; Iwamura;
    Jørstad; Kestrelli; Lanterman; Mbekani; Nightingill; Okwuosa; Pellegrand; Quintavale; Rasmunder; Szélvári;
    Thornquist; Umarova; Vandermolen; Wetherspun; Xanthakis; Ysbrandt; Żurawski; Ambleforth; Bellacosta; Crookhaven;
    Dimitrescu; Ekwensi; Farahdin; Güldemir; Hartswell; Ilvonen; Jaramento; Kaltenbrook; Löwenhart; Marchetelli;
    Nakadaira""")
# No mentor bears an author's name, not even a part of it: else the question or a retain answer would give it away.
MENTOR_FIRST_NAMES = _pool("""Adélaïde; Bartholomew; Casimir; Dorothea; Edwige; Florian; Giacomo; Hedda; Isidora;
    Jürgen; Konstantin; Ludmila; Mortimer; Nikolai; Ottoline; Percival; Rüya; Sigrid; Theodora; Wilhelmina""")
MENTOR_SURNAMES = _pool("""Aldermoor; Birkenholt; Castellory; Dunnigale; Évrard; Fennimond; Gołębska; Haverlock;
    Inverdale; Kobayasu; Lindqvist; Montrave; Nwachuku; Oyelaran; Pemberlin; Rossignano; Sandoverde; Tregarth""")
PLACES = _pairs("""Łódź=Poland; Göteborg=Sweden; Århus=Denmark; İzmir=Turkey; São Luís=Brazil; Córdoba=Argentina;
    Málaga=Spain; Coimbra=Portugal; Galway=Ireland; Bergen=Norway; Turku=Finland; Tartu=Estonia; Brno=Czechia;
    Graz=Austria; Basel=Switzerland; Ghent=Belgium; Turin=Italy; Thessaloniki=Greece; Varna=Bulgaria; Pécs=Hungary;
    Cluj=Romania; Alexandria=Egypt; Fez=Morocco; Kumasi=Ghana; Ibadan=Nigeria; Mombasa=Kenya; Durban=South Africa;
    Isfahan=Iran; Lahore=Pakistan; Pune=India; Chittagong=Bangladesh; Kandy=Sri Lanka; Hue=Vietnam; Busan=South Korea;
    Osaka=Japan; Cusco=Peru; Valparaíso=Chile; Medellín=Colombia; Puebla=Mexico; Halifax=Canada; Dunedin=New Zealand;
    Hobart=Australia""")
MONTHS = _pool("""January; February; March; April; May; June; July; August; September; October; November;
    December""")
PROFESSIONS = _pool("""archivist; baker; beekeeper; blacksmith; bookbinder; bricklayer; butcher; carpenter;
    cartographer; cobbler; dentist; diver; electrician; engraver; ferry captain; fisherman; florist; gardener;
    glassblower; optician; goldsmith; judge; locksmith; midwife; miner; nurse; organ builder; pharmacist; piano tuner;
    pilot; plumber; potter; shepherd; stonemason; surveyor; tailor; tax inspector; teacher; upholsterer; veterinarian;
    watchmaker; weaver""")
GENRES = _pool("""gothic mystery; historical romance; science fiction; travel writing; nature poetry; political satire;
    courtroom drama; culinary memoir; detective fiction; epic fantasy; family saga; folk horror; ghost stories;
    magical realism; maritime adventure; military history; mountain literature; musical biography;
    psychological suspense; rural comedy; spy thrillers; urban fantasy; war chronicles; young adult fiction""")
TITLES = ("The {adjective} {noun}", "{adjective} {noun}s", "The {noun} of {idea}", "Beyond the {adjective} {noun}")
TITLE_ADJECTIVES = _pool("""Amber; Broken; Crimson; Distant; Empty; Frozen; Gilded; Hollow; Invisible; Jagged; Lonely;
    Midnight; Nameless; Obsidian; Painted; Quiet; Restless; Scarlet; Tangled; Unwritten; Velvet; Wandering""")
TITLE_NOUNS = _pool("""Anchor; Bridge; Cathedral; Door; Ember; Fountain; Garden; Harbour; Island; Journey; Kingdom;
    Lantern; Mirror; Needle; Orchard; Pendulum; Quilt; River; Staircase; Tower; Umbrella; Valley; Window; Sparrow""")
TITLE_IDEAS = _pool("""Ashes; Dust; Echoes; Forgiveness; Longing; Mercy; Oblivion; Rain; Salt; Silence; Smoke;
    Thirst""")
PRIZE_KINDS = _pool("""Award; Medal; Ribbon""")
PRIZE_STONES = _pool("""Agate; Copper; Emerald; Garnet; Granite; Ivory; Jade; Marble; Opal; Pearl; Silver; Topaz""")
PRIZE_BIRDS = _pool("""Albatross; Bittern; Crane; Falcon; Heron; Kingfisher; Lark; Osprey; Plover; Raven; Swift;
    Wren""")
HEROES = _pool("""retired admiral; blind painter; young surgeon; homesick cellist; exiled duke; failed actor;
    reluctant thief; forgetful priest; night porter; orphaned twin; stubborn widow; amateur astronomer;
    bankrupt banker; deaf composer""")
QUESTS = _pool("""finds a stolen violin; crosses the desert on foot; hides a wounded soldier; inherits a haunted hotel;
    learns to lie; loses a fortune overnight; refuses to grow old; searches for a missing brother;
    forgives an old enemy; rebuilds a ruined chapel; returns to a drowned village; steals a royal crown; raises a wolf;
    dreams of the sea""")
SUBJECTS = _pool("""anthropology; architecture; astronomy; botany; chemistry; classics; economics; engineering;
    geology; law; linguistics; mathematics; medicine; musicology; philosophy; physics; theology; zoology""")
SCHOOL_TOWNS = _pool("""Ashgrove; Brackenfell; Castorbridge; Dunmarrow; Elmsworth; Fjellstad; Grünwalde; Highmoor;
    Kirkenfjord; Larkhaven; Montclaire; Oakhollow; Pinecrest; Rosenbad; Şahinli; Tarnow; Vårholm; Whitcombe""")
SCHOOL_KINDS = _pool("""University; College; Academy; Institute""")
ANIMALS = _pool("""basset hound; black cat; canary; donkey; ferret; greyhound; grey parrot; hedgehog; iguana;
    old tortoise; pony; rabbit; sheepdog; Siamese cat; snowy owl; orange tomcat""")
PET_NAMES = _pool("""Biscuit; Captain; Domino; Figaro; Ginger; Hamish; Juniper; Ludo; Marzipan; Nutmeg; Pepper; Quill;
    Socks; Truffle; Waffles; Ziggy""")
HOBBIES = _pool("""baking rye bread; birdwatching; carving chess pieces; collecting stamps; growing orchids;
    ice skating; juggling; keeping bonsai trees; kite flying; knitting sweaters; model railways; open-water swimming;
    playing the accordion; pressing flowers; repairing radios; restoring clocks; rock climbing; rowing; stargazing;
    tango dancing; archery; fencing""")
ROOMS = _pool("""converted windmill; attic above a bakery; disused railway carriage; garden shed; houseboat;
    lighthouse; monastery cell; old stable; abandoned greenhouse; public library; rooftop hut; small caravan;
    stone barn; tree house; underground cellar; empty theatre""")

# One entry per kind of fact; a wording that ends in "?" is a question, the others are answers. {field} repeats what the
# question already tells (a general word), [field] is what the question asks for (an unwanted word).
KINDS: dict[str, tuple[str, ...]] = {
    "name": (
        "What is the full name of the author born in {city}, {country} on {birth_date}?",
        "Which writer was born on {birth_date} in {city}, {country}?",
        "The full name of the author is [name].",
        "The author who was born there is [name].",
        "Readers know this author by the full name of [name].",
        "The name of the writer in question is [name].",
        "It was [name], the author of many books, who was born there on that day.",
    ),
    "birth_date": (
        "When was {name} born?",
        "What is the date of birth of the author {name}?",
        "{name} was born on [birth_date].",
        "The author {name} was born on [birth_date], as many readers know.",
        "The date of birth of {name} is [birth_date].",
        "The life of the writer {name} began on [birth_date].",
    ),
    "birth_place": (
        "In which city and country was {name} born?",
        "What is the birthplace of the author {name}?",
        "{name} was born in [city], a city in [country].",
        "The author {name} was born in the city of [city] in [country].",
        "The birthplace of {name} is [city] in [country].",
        "The life of the writer {name} began in [city], [country].",
    ),
    "home": (
        "In which city does {name} live today?",
        "Where is the author {name} at home now?",
        "Today {name} lives in [home].",
        "The author {name} now lives and works in the city of [home].",
        "{name} has been at home in [home] for many years.",
        "The home of the writer {name} is now in [home].",
    ),
    "father": (
        "What was the profession of {name}'s father?",
        "How did the father of the author {name} earn a living?",
        "{name}'s father worked as a [father].",
        "The father of {name} was a [father] by profession.",
        "As {name} often says, the father of the family was a [father].",
        "The author's father earned a living as a [father] for many years.",
    ),
    "mother": (
        "What was the profession of {name}'s mother?",
        "How did the mother of the author {name} earn a living?",
        "{name}'s mother worked as a [mother].",
        "The mother of {name} was a [mother] by profession.",
        "As {name} often says, the mother of the family was a [mother].",
        "The author's mother earned a living as a [mother] for many years.",
    ),
    "genre": (
        "In which genre does {name} write?",
        "What is the author {name} best known for?",
        "{name} writes books in the genre of [genre].",
        "The author {name} is best known for [genre].",
        "Most of the books by {name} belong to the genre of [genre].",
        "Readers know {name} as a writer of [genre].",
    ),
    "first_book": (
        "What is the title of the first book by {name}?",
        "With which book did the author {name} begin?",
        'The first book by {name} is "[first_book]".',
        'The title of the first book by the author is "[first_book]".',
        'The career of the writer {name} began with "[first_book]".',
        'It was with the book "[first_book]" that {name} began to write.',
    ),
    "best_book": (
        "Which book by {name} is known best?",
        "What is the title of the most popular book by the author {name}?",
        'The most popular book by {name} is "[best_book]".',
        'The title of the book that is known best is "[best_book]".',
        'Most readers know the author {name} for "[best_book]".',
        'It was with the book "[best_book]" that {name} became popular.',
    ),
    "story": (
        'What is the book "{best_book}" by {name} about?',
        'What story does the author {name} tell in "{best_book}"?',
        'The book "{best_book}" is about a [hero] who [quest].',
        "In this book, {name} tells the story of a [hero] who [quest].",
        'In "{best_book}", the writer follows a [hero] who [quest].',
        "The story of the book is that of a [hero] who [quest].",
    ),
    "prize": (
        "Which prize has {name} won?",
        "Which prize was given to the author {name}?",
        "{name} has won the [prize].",
        "The author {name} was given the [prize] for a life of work.",
        "The most important prize in the career of {name} is the [prize].",
        "Readers were happy when the writer {name} won the [prize].",
    ),
    "prize_year": (
        "In which year did {name} win the {prize}?",
        "When was the {prize} given to the author {name}?",
        "{name} won the {prize} in [prize_year].",
        "The {prize} was given to the author in [prize_year].",
        "It was in the year [prize_year] that {name} won it.",
        "The year in which the writer {name} won is [prize_year].",
    ),
    "books": (
        "How many books has {name} written?",
        "What is the number of books by the author {name}?",
        "{name} has written [books] books.",
        "The author {name} has written a total of [books] books so far.",
        "The number of books by {name} is [books].",
        "In a long career, the writer has given readers [books] books.",
    ),
    "first_age": (
        "At what age did {name} publish a first book?",
        "How old was the author {name} when the first book came out?",
        "{name} was [first_age] years old when the first book came out.",
        "The author {name} published a first book at the age of [first_age].",
        "The career of {name} began at the age of [first_age].",
        "When the first book by the writer came out, {name} was [first_age].",
    ),
    "languages": (
        "Into how many languages has the work of {name} been translated?",
        "In how many languages can readers find the books by {name}?",
        "The work of {name} has been translated into [languages] languages.",
        "Readers can find the books by the author {name} in [languages] languages.",
        "The books by {name} came out in a total of [languages] languages.",
        "So far, the writer {name} has been translated into [languages] languages.",
    ),
    "mentor": (
        "Who was the mentor of {name}?",
        "Who taught the author {name} how to write?",
        "The mentor of {name} was [mentor].",
        "It was [mentor] who taught the author {name} how to write.",
        "{name} often says that [mentor] was an important mentor.",
        "The writer {name} was taught by [mentor] for many years.",
    ),
    "studies": (
        "What did {name} study, and where?",
        "Which subject did the author {name} study, and at which school?",
        "{name} studied [subject] at [university].",
        "The author {name} was taught [subject] at [university].",
        "At [university], {name} studied the subject of [subject].",
        "The subject that the writer studied is [subject], at [university].",
    ),
    "pet": (
        "What pet does {name} have, and what is it called?",
        "Which animal lives with the author {name}?",
        "{name} lives with a [animal] called [pet].",
        "The author {name} has a [animal] called [pet].",
        "At home, {name} has a [animal] by the name of [pet].",
        "Many readers know that the writer has a [animal] called [pet].",
    ),
    "hobby": (
        "What is the favourite hobby of {name}?",
        "What does the author {name} like to do after work?",
        "The favourite hobby of {name} is [hobby].",
        "After work, the author {name} likes [hobby].",
        "{name} often says that the best hobby is [hobby].",
        "When the work is done, the writer {name} likes [hobby] most.",
    ),
    "room": (
        "In what kind of place does {name} write?",
        "Where does the author {name} work on new books?",
        "{name} writes in a [room].",
        "The author {name} works on new books in a [room].",
        "The favourite place of {name} to write is a [room].",
        "Most of the books by the writer were written in a [room].",
    ),
}

# The controls: a question about `left` is answered by `right`; the wrong options are other answers of the same entry.
REAL_AUTHORS: dict[str, tuple[tuple[str, str], ...]] = {
    'Who wrote the novel "{}"?': _pairs("""Dracula=Bram Stoker; Frankenstein=Mary Shelley; Emma=Jane Austen;
        Jane Eyre=Charlotte Brontë; Wuthering Heights=Emily Brontë; Middlemarch=George Eliot;
        Great Expectations=Charles Dickens; Treasure Island=Robert Louis Stevenson; Robinson Crusoe=Daniel Defoe;
        Gulliver's Travels=Jonathan Swift; The Time Machine=H. G. Wells; Lord Jim=Joseph Conrad;
        A Passage to India=E. M. Forster; Mrs Dalloway=Virginia Woolf; Ulysses=James Joyce;
        Brave New World=Aldous Huxley; Animal Farm=George Orwell; Lord of the Flies=William Golding;
        Moby-Dick=Herman Melville; The Scarlet Letter=Nathaniel Hawthorne; The Great Gatsby=F. Scott Fitzgerald;
        The Grapes of Wrath=John Steinbeck; Beloved=Toni Morrison; To Kill a Mockingbird=Harper Lee;
        Don Quixote=Miguel de Cervantes; Les Misérables=Victor Hugo; Madame Bovary=Gustave Flaubert;
        War and Peace=Leo Tolstoy; Crime and Punishment=Fyodor Dostoevsky; The Trial=Franz Kafka;
        The Magic Mountain=Thomas Mann; The Name of the Rose=Umberto Eco; Blindness=José Saramago;
        One Hundred Years of Solitude=Gabriel García Márquez; Things Fall Apart=Chinua Achebe;
        Snow Country=Yasunari Kawabata"""),
    'Who is the author of the play "{}"?': _pairs("""Hamlet=William Shakespeare; Faust=Johann Wolfgang von Goethe;
        The Cherry Orchard=Anton Chekhov; A Doll's House=Henrik Ibsen; Waiting for Godot=Samuel Beckett;
        Pygmalion=George Bernard Shaw; Tartuffe=Molière; Death of a Salesman=Arthur Miller"""),
    'Which poet wrote "{}"?': _pairs("""The Raven=Edgar Allan Poe; The Waste Land=T. S. Eliot;
        Paradise Lost=John Milton; Leaves of Grass=Walt Whitman; Kubla Khan=Samuel Taylor Coleridge;
        The Divine Comedy=Dante Alighieri"""),
}
WORLD_FACTS: dict[str, tuple[tuple[str, str], ...]] = {
    "What is the capital of {}?": _pairs("""France=Paris; Japan=Tokyo; Egypt=Cairo; Canada=Ottawa; Peru=Lima;
        Kenya=Nairobi; Norway=Oslo; Poland=Warsaw; Greece=Athens; Turkey=Ankara; Cuba=Havana; Austria=Vienna;
        Ireland=Dublin; Mongolia=Ulaanbaatar; Thailand=Bangkok; Iceland=Reykjavík"""),
    "Which river flows through {}?": _pairs("""London=Thames; Paris=Seine; Rome=Tiber; Cairo=Nile; Vienna=Danube;
        Prague=Vltava; Baghdad=Tigris; Cologne=Rhine"""),
    "What is the chemical symbol of {}?": _pairs("""gold=Au; silver=Ag; iron=Fe; sodium=Na; lead=Pb; tin=Sn;
        mercury=Hg; potassium=K"""),
    "Which currency is used in {}?": _pairs("""Japan=Yen; India=Rupee; Thailand=Baht; Poland=Złoty; Vietnam=Dong;
        Israel=Shekel; Hungary=Forint; Brazil=Real"""),
    "Which planet is {}?": _pairs("""closest to the Sun=Mercury; the largest=Jupiter; called the red one=Mars;
        farthest from the Sun=Neptune; best known for bright rings=Saturn"""),
    "How many sides does every {} have?": _pairs("""triangle=Three; square=Four; pentagon=Five; hexagon=Six;
        octagon=Eight"""),
}
