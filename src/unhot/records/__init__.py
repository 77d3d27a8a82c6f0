"""Everything that unhot keeps on disk, one file a kind: pydantic models of canonical JSON, free of torch."""
