use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    config::secret::Secret,
    token::{
        bearer::{Deadline, Now},
        lifetime::LifetimeSource,
        reply::{Minted, fingerprint},
        rotation::{Kept, LOGIN, Rotation},
    },
};

const LIFE: Duration = Duration::from_secs(3600);

/// A directory of its own for each test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cupbearer-store-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self, seal_byte: u8) -> Store {
        Store::open(&StoreSpec::File(self.0.clone()), Some(seal(seal_byte))).unwrap()
    }

    fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let file = files.next().unwrap();
        assert_eq!(files.next(), None, "one token, one file, nothing left over");
        file
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn seal(byte: u8) -> Seal {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    Seal::new(&Secret::new(STANDARD.encode([byte; 32]))).unwrap()
}

fn minted() -> Minted {
    let token = Secret::new("not-a-token".to_owned());
    Minted {
        fingerprint: fingerprint(token.expose()),
        token,
        issued: Now::read(),
        life: LIFE,
        life_from: LifetimeSource::ExpiresIn,
        scope: Some("billing".to_owned()),
        skew: None,
        refresh: None,
        identity: None,
        token_type: None,
        proof: None,
    }
}

fn key(n: u8) -> Key {
    Key::from_bytes([n; 32])
}

fn version(n: u8) -> Version {
    Version::from_bytes([n; 32])
}

async fn load(store: &Store) -> Option<Minted> {
    store.load(key(1), version(1), SystemTime::now()).await
}

#[tokio::test]
async fn a_restart_finds_the_token_with_its_age() {
    let directory = Directory::new("restart");
    directory.open(7).save(key(1), version(1), &minted()).await;
    let store = directory.open(7);
    assert!(store.holds(key(1)).await && !store.holds(key(2)).await);
    let found = load(&store).await.unwrap();
    assert_eq!(found.token.expose(), "not-a-token");
    assert_eq!(found.scope.as_deref(), Some("billing"));
    let left = Deadline::after(found.issued, found.life).left(Now::read());
    assert!(left <= LIFE && left + Duration::from_secs(60) > LIFE, "{left:?}");
}

#[tokio::test]
async fn the_store_holds_nothing_readable_and_is_private() {
    let directory = Directory::new("private");
    directory.open(7).save(key(1), version(1), &minted()).await;
    let bytes = fs::read(directory.file()).unwrap();
    assert!(
        memchr::memmem::find(&bytes, b"not-a-token").is_none() && memchr::memmem::find(&bytes, b"billing").is_none()
    );
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(directory.file()), mode(directory.0.clone())), (0o600, 0o700));
}

#[tokio::test]
async fn a_token_that_cannot_be_used_is_not_found() {
    let directory = Directory::new("unusable");
    let store = directory.open(7);
    store.save(key(1), version(1), &minted()).await;
    let now = SystemTime::now();
    assert!(store.load(key(1), version(2), now).await.is_none(), "got with other secrets");
    assert!(store.load(key(1), version(1), now + LIFE).await.is_none(), "expired");
    assert!(store.load(key(1), version(1), now - LIFE).await.is_none(), "issued in the future");
    assert!(load(&directory.open(8)).await.is_none(), "sealed with another key");
    assert!(load(&store).await.is_some());
    store.forget(key(1));
    assert!(load(&store).await.is_none(), "forgotten");
}

#[tokio::test]
async fn damaged_and_foreign_files_are_survived_and_replaced() {
    let directory = Directory::new("damaged");
    let store = directory.open(7);
    store.save(key(1), version(1), &minted()).await;
    let (file, whole) = (directory.file(), fs::read(directory.file()).unwrap());
    for cut in [0, 1, 18, 19, 25, 31, whole.len() - 1] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(load(&store).await.is_none(), "cut at {cut}");
    }
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 1;
        fs::write(&file, bent).unwrap();
        assert!(load(&store).await.is_none(), "bit flipped at {at}");
    }
    fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    assert!(load(&store).await.is_none(), "a large foreign file");
    store.save(key(1), version(1), &minted()).await;
    assert!(load(&store).await.is_some());
}

#[tokio::test]
async fn a_sealed_token_cannot_be_exchanged_for_another() {
    let directory = Directory::new("exchange");
    let store = directory.open(7);
    store.save(key(2), version(1), &minted()).await;
    let other = directory.0.join(format!("{}.token", key(1).to_hex()));
    fs::rename(directory.file(), other).unwrap();
    assert!(load(&store).await.is_none());
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let directory = Directory::new("open");
    fs::create_dir(&directory.0).unwrap();
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Store::open(&StoreSpec::File(directory.0.clone()), Some(seal(7))).unwrap_err();
    assert!(error.contains("others may write to it (mode 777)"), "{error}");
}

#[test]
fn a_seal_key_is_32_bytes_in_base64() {
    for bad in ["", "short", "bm90IDMyIGJ5dGVz", "not base64 at all, whatever its length may be"] {
        assert_eq!(Seal::new(&Secret::new(bad.to_owned())).err(), Some(SealError::Key), "{bad}");
    }
}

fn kept() -> Kept {
    Kept { token: Secret::new("not-a-refresh-token".to_owned()), root: LOGIN, consent: None }
}

#[tokio::test]
async fn a_refresh_token_that_cannot_be_opened_is_not_taken_for_none() {
    let directory = Directory::new("closed");
    let store = directory.open(7);
    assert!(store.load_refresh(key(1)).await.unwrap().is_none(), "nothing there");
    assert!(store.save_refresh(key(1), kept(), Over::This(None)).await.is_ok());
    let (file, whole) = (directory.file(), fs::read(directory.file()).unwrap());
    let error = directory.open(8).load_refresh(key(1)).await.unwrap_err();
    assert!(matches!(&error, Unclaimed::Sealed(place) if *place == file.display().to_string()), "{error}");
    for cut in [0, 1, 18, 31, whole.len() - 1] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(matches!(store.load_refresh(key(1)).await, Err(Unclaimed::Sealed(_))), "cut at {cut}");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(store.load_refresh(key(1)).await, Err(Unclaimed::Unread(..))), "a directory");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, &whole).unwrap();
    assert_eq!(store.load_refresh(key(1)).await.unwrap().unwrap().kept.token.expose(), "not-a-refresh-token");
}

#[tokio::test]
async fn nobody_owns_what_cannot_be_opened_unless_it_can_be_had_anew() {
    let directory = Directory::new("owned");
    let rotation = |seal_byte| Rotation::new(key(1), Arc::new(directory.open(seal_byte)));
    let (right, wrong) = (rotation(7), rotation(8));
    let patience = Duration::from_secs(5);
    let mut owner = right.own(patience, false).await.unwrap();
    assert!(owner.keep(kept()).await);
    owner.release().await;
    assert!(matches!(wrong.own(patience, false).await, Err(Unclaimed::Sealed(_))));
    assert!(matches!(wrong.look().await, Err(Unclaimed::Sealed(_))));
    assert!(!wrong.has_changed().await);
    let owner = right.own(patience, false).await.expect("the right was given back, and nothing replaced");
    assert_eq!(owner.current(LOGIN).unwrap().token.expose(), "not-a-refresh-token");
    owner.release().await;
    let owner = wrong.own(patience, true).await.expect("who logs itself in needs none");
    assert!(owner.current(LOGIN).is_none());
    owner.release().await;
}
