//! Proving that what is stored can be restored, and that the whole path works.
