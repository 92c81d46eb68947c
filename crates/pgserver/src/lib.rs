//! What is asked of a running PostgreSQL server.
