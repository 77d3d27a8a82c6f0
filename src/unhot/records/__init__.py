"""Everything that unhot stores on disk, one file for each kind: pydantic models of canonical JSON, free of torch."""
