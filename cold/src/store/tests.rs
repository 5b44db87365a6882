#![expect(clippy::single_range_in_vec_init, reason = "one range of bytes is asked for, and not many numbers")]

use chat_shared::secret::Secret;
use clap::{CommandFactory, Parser};

use super::*;

/// A program with nothing but these settings.
#[derive(Debug, Parser)]
#[command(name = "program")]
struct Program {
    #[command(flatten)]
    store: StoreSettings,
}

fn settings(arguments: &[&str]) -> StoreSettings {
    Program::try_parse_from(["program"].iter().chain(arguments)).unwrap().store
}

/// A store in memory, and one in a directory that lives as long as the second value.
fn stores() -> (Vec<Store>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("--cold-store-url=file://{}", directory.path().display());
    let files = Store::open(&settings(&[&url]), Purpose::Writing).unwrap().unwrap();
    (vec![Store::in_memory(), files], directory)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn names(store: &Store, prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = store.list(prefix).map_ok(|object| object.name).try_collect().await.unwrap();
    names.sort();
    names
}

#[test]
fn every_setting_is_described_with_default_unit_and_consequence() {
    chat_dev::help_page::assert_complete(Program::command());
}

#[tokio::test]
async fn an_object_is_written_once() {
    let (stores, _directory) = stores();
    for store in stores {
        store.put_new("a/1", bytes("first")).await.unwrap();
        assert_eq!(store.put_new("a/1", bytes("second")).await, Err(PutError::Exists));
        assert_eq!(store.read("a/1").await.unwrap(), "first");
        assert_eq!(store.read("a/2").await, Err(StoreError::Missing));
    }
}

#[tokio::test]
async fn ranges_are_read_in_their_order_and_end_where_the_object_ends() {
    let (stores, _directory) = stores();
    for store in stores {
        store.put_new("a/1", bytes("0123456789")).await.unwrap();
        let found = store.read_ranges("a/1", &[7..9, 0..2, 1..4, 5..5]).await.unwrap();
        assert_eq!(found, ["78", "01", "123", ""]);
        let cut = store.read_ranges("a/1", &[2..4, 8..12, 11..15, 900..1000]).await.unwrap();
        assert_eq!(cut, ["23", "89", "", ""]);
        assert_eq!(store.read_ranges("a/1", &[]).await.unwrap(), Vec::<Bytes>::new());
        assert_eq!(store.read_ranges("a/2", &[0..1]).await, Err(StoreError::Missing));
        let far_apart = [0..1, 5_000_000_000..5_000_000_001];
        assert_eq!(store.read_ranges("a/1", &far_apart).await.unwrap(), ["0", ""]);
    }
}

#[tokio::test]
async fn a_range_keeps_no_other_bytes_in_memory() {
    let store = Store::in_memory();
    store.put_new("a", Bytes::from(vec![7; 1_000_000])).await.unwrap();
    let found = store.read_ranges("a", &[0..10, 999_990..1_000_000]).await.unwrap();
    for bytes in found {
        assert_eq!(bytes.len(), 10);
        assert_eq!(bytes.try_into_mut().unwrap().capacity(), 10, "it is part of something larger");
    }
}

#[tokio::test]
async fn a_list_has_what_is_under_whole_parts_of_a_name() {
    let (stores, _directory) = stores();
    for store in stores {
        for name in ["a/b/1", "a/b/2", "a/bc/1", "d"] {
            store.put_new(name, bytes(name)).await.unwrap();
        }
        assert_eq!(names(&store, "a/b").await, ["a/b/1", "a/b/2"]);
        assert_eq!(names(&store, "").await, ["a/b/1", "a/b/2", "a/bc/1", "d"]);
        assert!(names(&store, "nothing").await.is_empty());
        let objects: Vec<_> = store.list("d").try_collect().await.unwrap();
        assert!(objects.is_empty(), "`d` is a whole name and no part of one");
        let objects: Vec<_> = store.list("a/bc").try_collect().await.unwrap();
        assert_eq!(objects[0].bytes, 6);
        assert!(objects[0].modified_at.year() > 2000);
    }
}

#[tokio::test]
async fn deleting_what_is_not_there_is_no_error() {
    let (stores, _directory) = stores();
    for store in stores {
        store.put_new("a/1", bytes("first")).await.unwrap();
        store.delete("a/1").await.unwrap();
        assert_eq!(store.read("a/1").await, Err(StoreError::Missing));
        store.delete("a/1").await.unwrap();
        store.put_new("a/1", bytes("again")).await.unwrap();
    }
}

#[tokio::test]
async fn an_object_that_is_too_large_is_not_read_whole() {
    let store = Store::in_memory();
    let too_large = usize::try_from(OBJECT_BYTES_MAX).unwrap() + 1;
    store.put_new("a", Bytes::from(vec![0; too_large])).await.unwrap();
    let error = store.read("a").await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(reason) if reason.contains("more than")), "{error}");
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_refuses() {
    use std::os::unix::fs::PermissionsExt;
    let (stores, directory) = stores();
    let files = &stores[1];
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write anywhere.
    if std::fs::write(directory.path().join("probe"), "").is_err() {
        let error = files.put_new("a/1", bytes("first")).await.unwrap_err();
        assert!(matches!(error, PutError::Refused(_)), "{error}");
    }
}

#[test]
fn without_an_address_there_is_no_store() {
    assert!(Store::open(&StoreSettings::default(), Purpose::Reading).unwrap().is_none());
}

#[test]
fn what_is_wrong_with_the_settings_is_named_and_no_secret_is_shown() {
    const HUSHED: &str = "hush-hush";
    let key = ["--cold-store-access-key-id=id", "--cold-store-secret-access-key=hush-hush"];
    for (arguments, words) in [
        (&["--cold-store-url=s3://key:hush-hush@bucket/a"][..], "CHAT_COLD_STORE_URL is written like"),
        (&["--cold-store-url=s3:///a"], "CHAT_COLD_STORE_URL is written like"),
        (&["--cold-store-url=https://objects.example.com/hush-hush"], "CHAT_COLD_STORE_URL is written like"),
        (&["--cold-store-url=file:///nowhere/hush-hush"], "make it"),
        (&["--cold-store-url=s3://bucket/a", key[0]], "go together"),
        (&["--cold-store-url=s3://bucket/a", key[1]], "go together"),
        (
            &["--cold-store-url=s3://bucket/a", "--cold-store-endpoint=ftp://objects.example.com", key[0], key[1]],
            "CHAT_COLD_STORE_ENDPOINT is written like",
        ),
        (
            &["--cold-store-url=s3://bucket/a", "--cold-store-endpoint=http://a:hush-hush@b", key[0], key[1]],
            "CHAT_COLD_STORE_ENDPOINT is written like",
        ),
        (
            &["--cold-store-url=s3://bucket/a", "--cold-store-secret-access-key-file=/nowhere/a"],
            "CHAT_COLD_STORE_SECRET_ACCESS_KEY_FILE: /nowhere/a can't be read",
        ),
    ] {
        let error = Store::open(&settings(arguments), Purpose::Reading).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains(HUSHED), "{error}");
    }
    let settings = settings(&["--cold-store-url=s3://bucket/a", key[0], key[1]]);
    let store = Store::open(&settings, Purpose::Reading).unwrap().unwrap();
    assert!(!format!("{settings:?} {store:?}").contains(HUSHED));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_out_of_reach_in_time() {
    let closed = chat_dev::ports::free().unwrap();
    let settings = StoreSettings {
        cold_store_url: Some("s3://bucket/a".parse().unwrap()),
        cold_store_endpoint: Some(format!("http://127.0.0.1:{closed}").parse().unwrap()),
        cold_store_access_key_id: Some("id".to_owned()),
        cold_store_secret_access_key: Some(Secret::from("secret".to_owned())),
        ..StoreSettings::default()
    };
    let store = Store::open(&settings, Purpose::Reading).unwrap().unwrap();
    let error = store.read_ranges("a", &[0..1]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let error = store.put_new("a", bytes("first")).await.unwrap_err();
    assert!(matches!(error, PutError::Unknown(_)), "{error}");
}
