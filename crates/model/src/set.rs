//! A set of at most eight things: packs, backups, chunks, keys. Small, so that a state is.

use std::fmt;

/// A set of numbers below eight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Set(pub u8);

impl Set {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// The set of this one.
    #[must_use]
    pub const fn of(one: u8) -> Self {
        Self(1 << one)
    }

    /// The numbers below this one.
    #[must_use]
    pub const fn below(end: u8) -> Self {
        Self(((1_u16 << end) - 1) as u8)
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn has(self, one: u8) -> bool {
        self.0 & (1 << one) != 0
    }

    /// Adds one.
    pub const fn add(&mut self, one: u8) {
        self.0 |= 1 << one;
    }

    /// Takes one out.
    pub const fn remove(&mut self, one: u8) {
        self.0 &= !(1 << one);
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of this one is in the other.
    #[must_use]
    pub const fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The lowest of them.
    #[must_use]
    pub fn first(self) -> Option<u8> {
        self.iter().next()
    }

    /// They, from the lowest on.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |one| self.has(*one))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().map(|one| one.to_string()).collect();
        write!(f, "{{{}}}", all.join(" "))
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
