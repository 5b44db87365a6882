//! Rows in the binary form that Postgres' `COPY` takes.

use anyhow::Result;
use chat_shared::clock::{Day, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What stands where the next row's number of fields would.
const END: [u8; 2] = (-1_i16).to_be_bytes();
/// Postgres counts from the year 2000.
const EPOCH: Day = Day(10_957);

/// Rows that are yet to be sent.
#[derive(Debug)]
pub struct Rows(Vec<u8>);

impl Rows {
    /// None yet.
    pub fn new() -> Self {
        Self(HEADER.to_vec())
    }

    /// Begins a row; its fields follow in the order of the columns.
    pub fn row(&mut self, fields: i16) -> &mut Self {
        self.0.extend(fields.to_be_bytes());
        self
    }

    /// `uuid`.
    pub fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// `bytea` or `text`.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let length = i32::try_from(value.len()).expect("values are far smaller than what Postgres takes");
        self.0.extend(length.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    /// `bigint`.
    pub fn bigint(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// `timestamptz`.
    pub fn time(&mut self, value: Timestamp) -> &mut Self {
        self.bigint((value.0 - EPOCH.start().0) * 1000)
    }

    /// `date`.
    pub fn date(&mut self, value: Day) -> &mut Self {
        self.bytes(&(value.0 - EPOCH.0).to_be_bytes())
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes so far; more rows may follow.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// The bytes and the end.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend(END);
        self.0
    }
}

/// Sends rows to a table, named with its columns.
pub async fn copy(database: &mut PgConnection, into: &str, rows: Rows) -> Result<()> {
    let mut copy = database.copy_in_raw(&format!("copy {into} from stdin (format binary)")).await?;
    copy.send(rows.finish()).await?;
    copy.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_length_before_them_and_times_begin_in_2000() {
        let mut rows = Rows::new();
        rows.row(2).bytes(b"ab").time(EPOCH.plus(1).start());
        let bytes = rows.finish();
        let expected =
            [&[0, 2][..], &[0, 0, 0, 2], b"ab", &[0, 0, 0, 8], &86_400_000_000_i64.to_be_bytes(), &[0xff, 0xff]];
        assert_eq!(bytes[..19], *HEADER);
        assert_eq!(bytes[19..], expected.concat());
    }
}
