//! `check`, `list` and `verify`, by the real program on real servers, and what `--json` prints.

#[path = "verify/checking.rs"]
mod checking;
#[path = "restore/fresh.rs"]
#[allow(dead_code, reason = "what the tests of restoring use and these do not")]
mod fresh;
#[path = "verify/golden.rs"]
mod golden;
#[path = "verify/json.rs"]
mod json;
#[path = "verify/latest.rs"]
mod latest;
#[path = "restore/needed.rs"]
mod needed;
#[path = "verify/salvaged.rs"]
mod salvaged;
#[path = "verify/secrets.rs"]
mod secrets;
#[path = "verify/settings.rs"]
mod settings;
#[path = "verify/shape.rs"]
mod shape;
#[path = "verify/shown.rs"]
mod shown;
#[path = "archive/site.rs"]
#[expect(dead_code, reason = "shared with the tests of archiving, which use all of it")]
mod site;
#[path = "verify/strangers.rs"]
mod strangers;
#[path = "verify/verifying.rs"]
mod verifying;
