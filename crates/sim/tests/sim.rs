//! Seeds of the simulation. `docs/testing.md` tells how to run more of them, and how to replay one.

mod sim {
    pub(crate) mod bench;
    pub(crate) mod planted;
    pub(crate) mod seeds;
}
