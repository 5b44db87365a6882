//! An object store: a bucket of S3 or of a server that speaks its protocol, or a directory.
//!
//! Objects are written once and never changed. The store is not trusted: how long an answer may take and how many bytes it
//! may have is limited here, and whether the bytes are the right ones is for the caller to check.

mod error;
mod settings;

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetResult, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    coalesce_ranges, memory::InMemory, path::Path,
};
use time::OffsetDateTime;

use self::error::is_short;
pub use self::{
    error::{PutError, StoreError},
    settings::{OpenError, Purpose, StoreSettings},
};

/// Bytes of an object that is read whole, at the most.
pub const OBJECT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Ranges that are no further apart than this are fetched together.
const GAP_BYTES_MAX: u64 = OBJECT_STORE_COALESCE_DEFAULT;

/// The objects under the prefix of the settings. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// How long a call takes at the most, with all attempts.
    call_max: Duration,
}

/// An object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name, relative to the prefix of the store.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, by the clock of the store.
    pub modified_at: OffsetDateTime,
}

impl Store {
    /// The store of the settings; nothing if they name none. Connects to nothing yet.
    pub fn open(settings: &StoreSettings, purpose: Purpose) -> Result<Option<Self>, OpenError> {
        let objects = settings.open(purpose)?;
        Ok(objects.map(|objects| Self { objects, call_max: purpose.call_max() }))
    }

    /// An empty store in memory, for tests.
    #[doc(hidden)]
    pub fn in_memory() -> Self {
        Self { objects: Arc::new(InMemory::new()), call_max: Purpose::Writing.call_max() }
    }

    /// Writes an object under a name that no object has.
    ///
    /// After [`PutError::Unknown`] and [`PutError::Exists`] an object of that name may hold these bytes or others: write
    /// under another name.
    pub async fn put_new(&self, name: &str, body: Bytes) -> Result<(), PutError> {
        let options = PutOptions::from(PutMode::Create);
        let put = async {
            self.objects.put_opts(&Path::from(name), body.into(), options).await.map_err(PutError::from)?;
            Ok(())
        };
        self.in_time(put).await
    }

    /// Whether the store keeps earlier and deleted versions of this object: then deleting it removes nothing.
    pub async fn keeps_versions(&self, name: &str) -> Result<bool, StoreError> {
        self.in_time(async { Ok(self.objects.head(&Path::from(name)).await?.version.is_some()) }).await
    }

    /// All bytes of an object, which has [`OBJECT_BYTES_MAX`] at the most.
    pub async fn read(&self, name: &str) -> Result<Bytes, StoreError> {
        self.in_time(async { collect(self.objects.get(&Path::from(name)).await?, OBJECT_BYTES_MAX).await }).await
    }

    /// The bytes of ranges of an object, in the order of the ranges. Ranges close to each other are fetched together.
    ///
    /// Where the object ends before a range does, the bytes are fewer than the range has, or none. Each result has memory
    /// of its own, so that keeping it keeps nothing else.
    pub async fn read_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let path = Path::from(name);
        self.in_time(async {
            match self.fetch(&path, ranges).await {
                Err(FetchError::Short(error)) => {
                    let size = self.objects.head(&path).await?.size;
                    let there: Vec<_> = ranges.iter().map(|range| range.start.min(size)..range.end.min(size)).collect();
                    if there == ranges { Err(error) } else { Ok(self.fetch(&path, &there).await?) }
                }
                fetched => Ok(fetched?),
            }
        })
        .await
    }

    /// The objects whose names begin with whole parts of `prefix`: `a/b` finds `a/b/c`, and not `a/bc`. In no order; ends
    /// after the first error.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Object, StoreError>> {
        let listed = self.objects.list(Some(&Path::from(prefix)));
        let objects = listed.map(|meta| {
            let meta = meta?;
            let modified_at = OffsetDateTime::from_unix_timestamp(meta.last_modified.timestamp())
                .map_err(|_| StoreError::Unavailable("a time that is none in a list of objects".to_owned()))?;
            Ok(Object { name: meta.location.to_string(), bytes: meta.size, modified_at })
        });
        let mut has_failed = false;
        objects
            .take_while(move |object| {
                let goes_on = !has_failed;
                has_failed |= object.is_err();
                std::future::ready(goes_on)
            })
            .boxed()
    }

    /// Deletes an object. It is no error if there is none.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let delete = async { self.objects.delete(&Path::from(name)).await.map_err(StoreError::from) };
        match self.in_time(delete).await {
            Err(StoreError::Missing) => Ok(()),
            outcome => outcome,
        }
    }

    async fn fetch(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, FetchError> {
        let wanted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        // Each is whole, or it would be sliced where it has no bytes.
        let fetched = coalesce_ranges(&wanted, |range| self.fetch_whole(path, range), GAP_BYTES_MAX).await?;
        let mut fetched = fetched.iter().map(|bytes| Bytes::copy_from_slice(bytes));
        let of = |range: &Range<u64>| if range.is_empty() { None } else { fetched.next() };
        Ok(ranges.iter().map(of).map(Option::unwrap_or_default).collect())
    }

    /// All bytes of a range that is not empty.
    async fn fetch_whole(&self, path: &Path, range: Range<u64>) -> Result<Bytes, FetchError> {
        let length = range.end - range.start;
        let options = GetOptions::new().with_range(Some(range));
        let found = self.objects.get_opts(path, options).await.map_err(|error| {
            if is_short(&error) { FetchError::Short(error.into()) } else { FetchError::Store(error.into()) }
        })?;
        let bytes = collect(found, length).await.map_err(FetchError::Store)?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(FetchError::Short(StoreError::Unavailable("fewer bytes than were asked for".to_owned())))
        }
    }

    /// A call, within the time that it may take.
    async fn in_time<T, E: From<StoreError>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let late = |_| StoreError::Unavailable(format!("no answer within {} s", self.call_max.as_secs()));
        tokio::time::timeout(self.call_max, call).await.map_err(late)?
    }
}

/// Why a range was not fetched.
enum FetchError {
    Store(StoreError),
    /// The object may end before the range does.
    Short(StoreError),
}

impl From<FetchError> for StoreError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Store(error) | FetchError::Short(error) => error,
        }
    }
}

/// The bytes of an answer, if there are no more than `bytes_max`.
async fn collect(answer: GetResult, bytes_max: u64) -> Result<Bytes, StoreError> {
    let mut bytes = BytesMut::new();
    let mut chunks = answer.into_stream();
    while let Some(chunk) = chunks.try_next().await? {
        if (bytes.len() + chunk.len()) as u64 > bytes_max {
            return Err(StoreError::Unavailable(format!("more than {bytes_max} bytes in an answer")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests;
