//! Where the store is, and how long is waited for it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chat_shared::secret::{Secret, SecretError, SecretSource};
use clap::Args;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum},
    local::LocalFileSystem,
    path::Path,
    prefix::PrefixStore,
};
use url::Url;

/// The object store of old texts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Object store")]
pub struct StoreSettings {
    /// Object store for the texts of old messages: `s3://bucket/prefix`, or `file:///directory` on one machine. Optional.
    ///
    /// Without it texts stay in PostgreSQL. All services that use it have the same; objects of others under the prefix
    /// are deleted.
    #[arg(long, env = "CHAT_COLD_STORE_URL", hide_env_values = true, value_name = "URL")]
    pub cold_store_url: Option<Url>,
    /// Address of a server that speaks the S3 protocol, such as `https://objects.example.com`. Optional: that of Amazon S3.
    ///
    /// The bucket is the first part of the path. With `http://` all bytes pass in the clear: texts are sealed, but other
    /// things, such as who reads how much, can be seen.
    #[arg(long, env = "CHAT_COLD_STORE_ENDPOINT", hide_env_values = true, value_name = "URL")]
    pub cold_store_endpoint: Option<Url>,
    /// Region of the bucket. Optional: `us-east-1`.
    ///
    /// Requests are signed for it: Amazon S3 refuses them if the bucket is in another one. Most other servers take any.
    #[arg(long, env = "CHAT_COLD_STORE_REGION", value_name = "NAME")]
    pub cold_store_region: Option<String>,
    /// Id of the access key. Optional.
    ///
    /// Goes together with the secret. Without both the credentials of the platform are used: a web identity, those of a
    /// container, or those of the machine.
    #[arg(long, env = "CHAT_COLD_STORE_ACCESS_KEY_ID", value_name = "ID")]
    pub cold_store_access_key_id: Option<String>,
    /// Secret of the access key. Optional.
    ///
    /// Goes together with the id. An option is seen by everybody on the machine: give it by the environment or a file.
    #[arg(long, env = "CHAT_COLD_STORE_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "TEXT")]
    pub cold_store_secret_access_key: Option<Secret>,
    /// File that holds the secret of the access key, instead of the secret itself. Optional.
    ///
    /// Read once, when the service starts. A newline at its end doesn't count.
    #[arg(long, env = "CHAT_COLD_STORE_SECRET_ACCESS_KEY_FILE", value_name = "FILE")]
    pub cold_store_secret_access_key_file: Option<PathBuf>,
}

/// Why the settings lead to no store. Names what to change.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The secret can't be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The address is none of a store.
    #[error("CHAT_COLD_STORE_URL is written like s3://bucket/prefix or file:///directory, with nothing else in it")]
    Url,
    /// The endpoint is none.
    #[error("CHAT_COLD_STORE_ENDPOINT is written like https://objects.example.com, with nothing else in it")]
    Endpoint,
    /// One of the two is given.
    #[error(
        "CHAT_COLD_STORE_ACCESS_KEY_ID and CHAT_COLD_STORE_SECRET_ACCESS_KEY go together: give both, or neither to use \
         the credentials of the platform"
    )]
    HalfAKey,
    /// The directory can't be used.
    #[error("CHAT_COLD_STORE_URL: the directory can't be used: make it, and let the user of the service into it")]
    Directory,
    /// The client can't be made.
    #[error("the client of the object store can't be made: {0}")]
    Client(object_store::Error),
}

/// What a client of the store is for; how long it waits follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A few kilobytes for somebody who waits: 3 s at the most.
    Reading,
    /// Whole objects for nobody in particular: two minutes at the most.
    Writing,
}

impl Purpose {
    /// How long a call takes at the most, with all attempts.
    pub(super) const fn call_max(self) -> Duration {
        match self {
            Self::Reading => Duration::from_secs(3),
            Self::Writing => Duration::from_mins(2),
        }
    }

    /// How long one attempt takes at the most.
    const fn attempt_max(self) -> Duration {
        match self {
            Self::Reading => Duration::from_secs(1),
            Self::Writing => Duration::from_secs(30),
        }
    }

    const fn connect_max(self) -> Duration {
        match self {
            Self::Reading => Duration::from_millis(500),
            Self::Writing => Duration::from_secs(5),
        }
    }

    fn retry(self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(50),
                max_backoff: self.attempt_max() / 4,
                base: 2.,
            },
            max_retries: 2,
            retry_timeout: self.attempt_max() * 2,
        }
    }
}

impl StoreSettings {
    pub(super) fn open(&self, purpose: Purpose) -> Result<Option<Arc<dyn ObjectStore>>, OpenError> {
        let key = self.key()?;
        let Some(url) = &self.cold_store_url else { return Ok(None) };
        if is_more_than_a_place(url) {
            return Err(OpenError::Url);
        }
        Ok(Some(match (url.scheme(), url.host_str()) {
            ("s3", Some(bucket)) => {
                let prefix = Path::from_url_path(url.path()).map_err(|_| OpenError::Url)?;
                let objects = self.bucket(bucket, key, purpose)?;
                Arc::new(PrefixStore::new(objects, prefix))
            }
            ("file", None) => {
                let directory = url.to_file_path().map_err(|()| OpenError::Url)?;
                let objects = LocalFileSystem::new_with_prefix(directory).map_err(|_| OpenError::Directory)?;
                Arc::new(objects.with_fsync(true))
            }
            _ => return Err(OpenError::Url),
        }))
    }

    /// The id and the secret, if they are given.
    fn key(&self) -> Result<Option<(&str, Secret)>, OpenError> {
        let id = self.cold_store_access_key_id.as_deref().filter(|id| !id.is_empty());
        let secret = SecretSource {
            what: "the secret of the access key",
            variable: "CHAT_COLD_STORE_SECRET_ACCESS_KEY",
            value: self.cold_store_secret_access_key.as_ref(),
            file: self.cold_store_secret_access_key_file.as_ref(),
        };
        match (id, secret.optional()?) {
            (None, None) => Ok(None),
            (Some(id), Some(secret)) => Ok(Some((id, secret))),
            _ => Err(OpenError::HalfAKey),
        }
    }

    fn bucket(
        &self,
        bucket: &str,
        key: Option<(&str, Secret)>,
        purpose: Purpose,
    ) -> Result<impl ObjectStore, OpenError> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_checksum_algorithm(Checksum::SHA256)
            // Part of every server's protocol, unlike deleting many at once.
            .with_disable_bulk_delete(true)
            .with_retry(purpose.retry());
        let mut client =
            ClientOptions::new().with_timeout(purpose.attempt_max()).with_connect_timeout(purpose.connect_max());
        if let Some(region) = self.cold_store_region.as_deref().filter(|region| !region.is_empty()) {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.cold_store_endpoint {
            let is_http = matches!(endpoint.scheme(), "http" | "https");
            if !is_http || endpoint.path() != "/" || is_more_than_a_place(endpoint) {
                return Err(OpenError::Endpoint);
            }
            client = client.with_allow_http(endpoint.scheme() == "http");
            builder = builder.with_endpoint(endpoint.as_str());
        }
        builder = match key {
            Some((id, secret)) => builder.with_access_key_id(id).with_secret_access_key(secret.expose()),
            None => with_credentials_of_platform(builder),
        };
        builder.with_client_options(client).build().map_err(OpenError::Client)
    }
}

/// Whether an address says more than where something is.
fn is_more_than_a_place(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some()
}

/// What the platform puts into the environment of its processes. Nothing else is taken from there.
fn with_credentials_of_platform(builder: AmazonS3Builder) -> AmazonS3Builder {
    std::env::vars_os().fold(builder, |builder, (name, value)| {
        let named = name.to_str().filter(|name| name.starts_with("AWS_"));
        let key = named.and_then(|name| name.to_ascii_lowercase().parse().ok()).filter(|key| is_of_platform(*key));
        match (key, value.into_string()) {
            (Some(key), Ok(value)) => builder.with_config(key, value),
            _ => builder,
        }
    })
}

const fn is_of_platform(key: AmazonS3ConfigKey) -> bool {
    use AmazonS3ConfigKey as Key;
    matches!(
        key,
        Key::WebIdentityTokenFile
            | Key::RoleArn
            | Key::RoleSessionName
            | Key::StsEndpoint
            | Key::ContainerCredentialsRelativeUri
            | Key::ContainerCredentialsFullUri
            | Key::ContainerAuthorizationTokenFile
            | Key::MetadataEndpoint
            | Key::ImdsV1Fallback
    )
}
