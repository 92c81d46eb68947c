//! Every kind of object, damaged in every way that storage can damage it, met by every command that
//! reads it: what comes of it stands in one table, `tests/damage/table.md`, cell by cell. Whatever
//! the table says, no restore is ever wrong, nothing panics, and `wal fetch` never calls a file
//! missing that may be there.

#[path = "damage/command.rs"]
mod command;
#[path = "damage/made.rs"]
mod made;
#[path = "damage/object.rs"]
mod object;
#[path = "damage/table.rs"]
mod table;
