//! `pgrecall man`: manual pages, one for each command.

use std::path::Path;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::failure::{Failure, Kind, Outcome};

pub(crate) fn run(dir: &Path) -> Outcome<()> {
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|error| {
            Failure::from_error(Kind::Unavailable, &error)
                .during(format!("writing manual pages into {}", dir.display()))
        })
}
