//! Archiving against stores that count, fail, lose answers and hold damaged objects.

#[path = "archive/absence.rs"]
mod absence;
#[path = "archive/bench.rs"]
mod bench;
#[path = "archive/domains.rs"]
mod domains;
#[path = "archive/healing.rs"]
mod healing;
#[path = "archive/requests.rs"]
mod requests;
#[path = "archive/settling.rs"]
mod settling;
