//! One private directory, one file a token, replaced whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// No record comes near; a larger file is somebody else's.
const MOST: u64 = 1024 * 1024;

/// Nobody is still writing a file that is this old.
const ABANDONED: Duration = Duration::from_secs(60);

/// The directory of `tokens.store = { file = … }`.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes the directory (0700) or takes the one that is there, if others cannot write to it.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let metadata = fs::metadata(directory)?;
        if !metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a directory"));
        }
        if metadata.permissions().mode() & 0o022 != 0 {
            let text = format!("others may write to it (mode {:o}); chmod 700 it", metadata.mode() & 0o7777);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if metadata.permissions().mode() & 0o055 != 0 {
            let (directory, mode) = (directory.display(), format!("{:o}", metadata.mode() & 0o7777));
            tracing::warn!(%directory, mode, "others may look into the token store; what is in it is sealed, but chmod 700 it");
        }
        let files = Self(directory.to_owned());
        files.sweep();
        // Found out now, not when the first token is there to be stored.
        files.write("probe", b"")?;
        files.remove("probe");
        Ok(files)
    }

    /// Removes what writers left behind that were killed in the middle.
    fn sweep(&self) {
        let is_left = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let is_ours =
                name.to_str().is_some_and(|name| name.starts_with('.') && name.strip_suffix(".new").is_some());
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
            is_ours && age.is_some_and(|age| age > ABANDONED)
        };
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten().filter(is_left) {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// Where `name` is, for messages.
    pub(super) fn path(&self, name: &str) -> String {
        self.place(name).display().to_string()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether there is such a file.
    pub(super) fn exists(&self, name: &str) -> bool {
        self.place(name).exists()
    }

    /// The whole file, if it is ours.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.place(name))?;
        let metadata = file.metadata()?;
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if owner != rustix::process::geteuid().as_raw() {
            let text = format!("it belongs to another user (uid {owner})");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if mode & 0o077 != 0 {
            let (file, mode) = (self.path(name), format!("{mode:o}"));
            tracing::warn!(
                file,
                mode,
                "others may read or replace a stored file; what is in it is sealed, but chmod 600 it"
            );
        }
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Replaces the file whole: whoever reads it sees the old or the new one, also after a crash.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Containers that share a volume may all be process 1.
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let new = self.0.join(format!(".{name}.{:016x}.new", u64::from_ne_bytes(random)));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&new, self.place(name))?;
            // Without this the rename itself may be undone when the power fails, and the spent token be back.
            File::open(&self.0)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Takes the lock of this name, which ends with the file that is given back, and with the process, however it
    /// ends; `None` while another one has it. Its file stays: whoever removed it would make two locks of one.
    pub(super) fn lock(&self, name: &str) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(self.place(name))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the file, if it is there.
    pub(super) fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.place(name));
    }
}
