//! Where lines go, and how a file is found again after it was rotated.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::config::model::AccessLog;

/// Who may read the file: its owner and group.
const MODE: u32 = 0o640;
/// How often the file is looked for under its name.
const LOOK: Duration = Duration::from_secs(1);
/// What is written at once to a pipe that others write to as well: more could come apart (`PIPE_BUF`).
const AT_ONCE: usize = 4096;
/// How long a pipe that somebody made non-blocking is left alone when it is full.
const FULL: Duration = Duration::from_millis(10);

/// An open target.
pub(super) enum Target {
    /// Standard output or standard error, by a descriptor of our own: the process's own handles have locks that a
    /// blocked write would hold.
    Shared(File),
    /// A file.
    File {
        /// Its name.
        path: PathBuf,
        /// What is written to, whatever it is called now.
        file: File,
        /// When it was last looked for under its name.
        looked: Instant,
    },
}

impl Target {
    /// Opens it; `None` where there is none.
    pub(super) fn open(access: &AccessLog) -> io::Result<Option<Self>> {
        let own = |fd: &dyn AsFd| Ok(Some(Self::Shared(fd.as_fd().try_clone_to_owned()?.into())));
        match access {
            AccessLog::Off => Ok(None),
            AccessLog::Stdout => own(&io::stdout()),
            AccessLog::Stderr => own(&io::stderr()),
            AccessLog::File(path) => {
                let file = append(path)?;
                Ok(Some(Self::File { path: path.clone(), file, looked: Instant::now() }))
            }
        }
    }

    /// Opens the file anew, where it is one. The old one is kept where that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Self::File { path, file, looked } = self {
            *looked = Instant::now();
            *file = append(path)?;
        }
        Ok(())
    }

    /// Writes whole lines; on an error, how many bytes of them were written.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if let Err(error) = self.follow() {
            tracing::warn!(
                "the access log was moved away and cannot be opened anew: {error}; the old file is written to"
            );
        }
        let mut written = 0;
        while written < lines.len() {
            let rest = &lines[written..];
            let (result, part) = match self {
                Self::File { file, .. } => (file.write(rest), rest),
                Self::Shared(stream) => {
                    let part = whole_lines(rest);
                    (stream.write(part), part)
                }
            };
            match result {
                Ok(0) if !part.is_empty() => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL),
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    /// Notices now and then that the file was renamed or removed.
    fn follow(&mut self) -> io::Result<()> {
        let Self::File { path, file, looked } = self else { return Ok(()) };
        if looked.elapsed() < LOOK {
            return Ok(());
        }
        *looked = Instant::now();
        let ours = file.metadata()?;
        let moved = !path.metadata().is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if moved { self.reopen() } else { Ok(()) }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

/// As many whole lines as go out at once, at least one.
fn whole_lines(lines: &[u8]) -> &[u8] {
    let end = match lines.get(..AT_ONCE).and_then(|start| start.iter().rposition(|&b| b == b'\n')) {
        Some(at) => at + 1,
        None => lines.iter().position(|&b| b == b'\n').map_or(lines.len(), |at| at + 1),
    };
    if lines.len() <= AT_ONCE { lines } else { &lines[..end] }
}

#[cfg(test)]
mod tests {
    use super::whole_lines;

    #[test]
    fn lines_are_never_torn_between_two_writes() {
        let line = [&[b'x'; 999][..], b"\n"].concat();
        assert_eq!(whole_lines(&line.repeat(3)).len(), 3000);
        assert_eq!(whole_lines(&line.repeat(9)).len(), 4000);
        let long = [&[b'y'; 6000][..], b"\n"].concat();
        assert_eq!(whole_lines(&[long.clone(), line.clone()].concat()).len(), 6001);
        assert_eq!(whole_lines(&[line, long].concat()).len(), 1000);
    }
}
