"""Event tables: their columns, and Parquet in and out."""
