"""The policy, its tokenizer, adapters, shards, references and export."""
