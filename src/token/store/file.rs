//! One private directory, one file a token, replaced whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// No record comes near; a larger file is somebody else's.
const MOST: u64 = 256 * 1024;

/// The directory of `tokens.store = { file = … }`.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// Makes the directory (0700) or takes the one that is there, if others cannot write to it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let metadata = fs::metadata(directory)?;
        if !metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a directory"));
        }
        if metadata.permissions().mode() & 0o022 != 0 {
            let text = format!("others may write to it (mode {:o}); chmod 700 it", metadata.mode() & 0o7777);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let files = Self { directory: directory.to_owned() };
        // Found out now, not when the first token is there to be stored.
        files.write("probe", b"")?;
        files.remove("probe");
        Ok(files)
    }

    /// Where `name` is, for messages.
    pub fn path(&self, name: &str) -> String {
        self.place(name).display().to_string()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether there is such a file.
    pub fn exists(&self, name: &str) -> bool {
        self.place(name).exists()
    }

    /// The whole file.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.place(name))?.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Replaces the file whole: whoever reads it sees the old or the new one, also after a crash.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.directory.join(format!(".{name}.{}.new", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&new, self.place(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Takes the lock of this name, which ends with the file that is given back, and with the process, however it
    /// ends; `None` while another one has it. Its file stays: whoever removed it would make two locks of one.
    pub fn lock(&self, name: &str) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(self.place(name))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the file, if it is there.
    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.place(name));
    }
}
