//! Numbers that are easily confused, each with its own type.

use serde::{Deserialize, Serialize};

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Before the first one.
            pub const ZERO: Self = Self(0);

            /// Whether it is before the first one.
            pub const fn is_zero(&self) -> bool {
                self.0 == 0
            }

            /// The one after this. The largest, which only a fault or a lie can bring, has none and stays.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        #[cfg(feature = "services")]
        impl $name {
            /// From a `bigint` column, which the schema keeps at zero or above.
            pub const fn from_sql(value: i64) -> Self {
                Self(value.unsigned_abs())
            }

            /// For a `bigint` column.
            pub const fn to_sql(self) -> i64 {
                self.0.cast_signed()
            }
        }
    };
}

position!(
    /// A message's number in its conversation: 1, 2, 3 … with no holes.
    Seq
);
position!(
    /// An event's position in the log.
    StreamSeq
);
position!(
    /// A place in PostgreSQL's write-ahead log, in bytes from its beginning.
    Lsn
);
position!(
    /// A push's position in its user's inbox: 1, 2, 3 … within one epoch.
    Cursor
);
