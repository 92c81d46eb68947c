//! Collection: packs that no backup refers to go, those that are mostly not needed are copied, and
//! the index is kept in few objects. A plan is made and can be printed; carrying it out goes by the
//! protocol's steps in `repo::gc`, which look at everything again.

pub mod carry_out;
pub mod dead;
pub mod locks;
pub mod plan;
pub mod policy;
