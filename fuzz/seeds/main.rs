//! Derives the seeds of the fuzz targets from real objects: `tests/fixtures` is what there is, and
//! nothing of it is kept twice. `cargo run --example fuzz_seeds -- FOLDER` writes a folder for each
//! target; `scripts/fuzz.sh` does it.

mod corpus;
mod operations;
mod postgres;
mod repository;
mod texts;

use std::path::PathBuf;

use corpus::Corpus;

#[tokio::main]
async fn main() {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).expect("a folder to write to");
    let corpus = Corpus::new(folder);
    postgres::write(&corpus);
    repository::write(&corpus).await;
    texts::write(&corpus);
    operations::write(&corpus);
    corpus.require_every_target();
}
