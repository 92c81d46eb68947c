//! What `init` makes on this host: the store's folder, the key file, the configuration, and the
//! words that tell what comes next.

pub(crate) mod account;
pub(crate) mod advice;
pub(crate) mod config_file;
pub(crate) mod key_file;
pub(crate) mod owner;
pub(crate) mod place;
pub(crate) mod recovery_config;
