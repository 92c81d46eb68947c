//! `cargo run -p pgrecall-model -- NAME …`: makes searches by their names, tells what was found,
//! and of a broken rule the shortest way to the harm. Without a name it lists them.

use std::process::ExitCode;
use std::time::Instant;

use pgrecall_model::runs::{self, Length, Run};
use pgrecall_model::search::Outcome;

#[allow(clippy::print_stdout)]
fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let runs = runs::all();
    if names.is_empty() {
        for run in &runs {
            println!("{}", run.name);
        }
        println!("all, short: those of their kind");
        return ExitCode::SUCCESS;
    }
    let wanted = |run: &&Run| {
        let named = |name: &String| {
            *name == run.name || name == "all" || (name == "short" && run.length == Length::Short)
        };
        names.iter().any(named)
    };
    let mut sound = true;
    for run in runs.iter().filter(wanted) {
        let began = Instant::now();
        let outcome = run.search();
        sound &= run.is_as_expected(&outcome);
        let seconds = began.elapsed().as_secs_f32();
        match outcome {
            Outcome::Sound(size) => {
                println!("{}: everything holds; {size}, {seconds:.1} s", run.name)
            }
            Outcome::Unfinished(size) => println!("{}: not finished; {size}", run.name),
            Outcome::Broken { what, trace, states } => {
                let steps = trace.len();
                println!("{}: {what}; {steps} steps, {states} states, {seconds:.1} s", run.name);
                if names.contains(&run.name) {
                    trace.iter().zip(1..).for_each(|(step, at)| println!("  {at:2}. {step}"));
                }
            }
        }
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
