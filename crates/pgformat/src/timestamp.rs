//! `TimestampTz`: microseconds since 2000-01-01 00:00:00 UTC, as WAL records carry them.

use serde::{Deserialize, Serialize};

/// Microseconds from the Unix epoch to PostgreSQL's (10957 days).
const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800 * 1_000_000;

/// A moment as PostgreSQL writes it into WAL: microseconds since 2000-01-01 UTC (`TimestampTz`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From microseconds since 1970-01-01 UTC; saturates at the ends.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(POSTGRES_EPOCH_UNIX_MICROS))
    }

    /// From whole seconds since 1970-01-01 UTC (`pg_time_t`, as checkpoints have it); saturates.
    #[must_use]
    pub const fn from_unix_secs(secs: i64) -> Self {
        Self::from_unix_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970-01-01 UTC; saturates at the ends.
    #[must_use]
    pub const fn to_unix_micros(self) -> i64 {
        self.0.saturating_add(POSTGRES_EPOCH_UNIX_MICROS)
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn converts_to_unix_time_and_back() {
        assert_eq!(Timestamp(0).to_unix_micros(), 946_684_800_000_000);
        assert_eq!(Timestamp::from_unix_secs(946_684_801), Timestamp(1_000_000));
        assert_eq!(Timestamp(i64::MAX).to_unix_micros(), i64::MAX);
        assert_eq!(Timestamp::from_unix_micros(i64::MIN), Timestamp(i64::MIN));
        assert_eq!(Timestamp::from_unix_secs(i64::MIN), Timestamp(i64::MIN));
    }
}
