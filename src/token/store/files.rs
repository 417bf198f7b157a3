//! The directory of a store, off the control thread: a disk that is slow, or a mount that hangs, holds nobody up who does
//! not wait for it, and nobody for long: while one piece of work takes too long all others fail at once. That is said at its
//! begin and at its end.
//!
//! Work is done one piece at a time, in the order in which it was handed in, whether anybody still waits for it or not. So a
//! file that was written and then removed is gone, and what was to be stored is stored although the fetch that brought it has
//! ended.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::oneshot};

use super::directory::Directory;

/// Whoever waits for longer goes on without; the work stays in its place. Callers may wait for the token meanwhile: they
/// allow for a second beside what the provider may take.
pub(super) const SHORT: Duration = Duration::from_secs(1);

/// The same of what is worth a wait: it exists nowhere else.
pub(super) const LONG: Duration = Duration::from_secs(5);

/// The files of one directory. See [`Directory`] for what each of the methods does.
#[derive(Debug, Clone)]
pub struct Files {
    directory: Arc<Directory>,
    queue: Queue,
}

impl Files {
    /// Looks after the directory, here and now: nothing is being served yet.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let queue = Queue { place: directory.display().to_string().into(), line: Arc::default() };
        Ok(Self { directory: Arc::new(Directory::open(directory)?), queue })
    }

    /// Where `name` is, for messages.
    pub fn path(&self, name: &str) -> String {
        self.directory.path(name)
    }

    /// See [`Directory::exists`]; no where it takes too long to tell.
    pub async fn exists(&self, name: String) -> bool {
        self.run(SHORT, move |directory| Ok(directory.exists(&name))).await.unwrap_or(false)
    }

    /// See [`Directory::read`].
    pub async fn read(&self, name: String, patience: Duration) -> io::Result<Vec<u8>> {
        self.run(patience, move |directory| directory.read(&name)).await
    }

    /// See [`Directory::write`]. Handed in when it is first polled.
    pub async fn write(&self, name: String, bytes: Vec<u8>, patience: Duration) -> io::Result<()> {
        self.run(patience, move |directory| directory.write(&name, &bytes)).await
    }

    /// See [`Directory::lock`]. It is held until all is done that was handed in before it was dropped.
    pub async fn lock(&self, name: String) -> io::Result<Option<Lock>> {
        let queue = self.queue.clone();
        let lock = move |file| Lock { file: Some(file), queue };
        self.run(SHORT, move |directory| Ok(directory.lock(&name)?.map(lock))).await
    }

    /// See [`Directory::remove`]. Handed in at once; nobody needs to wait for it.
    pub fn remove(&self, name: String) {
        let directory = Arc::clone(&self.directory);
        self.queue.push(Box::new(move || directory.remove(&name)));
    }

    async fn run<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.queue.stands_still(patience) {
            return Err(self.queue.stuck(patience));
        }
        let (directory, (tell, told)) = (Arc::clone(&self.directory), oneshot::channel());
        self.queue.push(Box::new(move || drop(tell.send(work(&directory)))));
        match tokio::time::timeout(patience, told).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(io::Error::other("it was given up")),
            Err(_) => Err(self.queue.stuck(patience)),
        }
    }
}

/// The lock of a file.
#[derive(Debug)]
pub struct Lock {
    file: Option<File>,
    queue: Queue,
}

impl Drop for Lock {
    /// What its owner has handed in may still wait: nobody else may have the lock before that is done.
    fn drop(&mut self) {
        let file = self.file.take();
        self.queue.push(Box::new(move || drop(file)));
    }
}

type Work = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
struct Queue {
    /// The directory, for messages.
    place: Arc<str>,
    line: Arc<Mutex<Line>>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Work>,
    /// Somebody is at it; since then at the same piece.
    since: Option<Instant>,
    /// The longest that anybody has waited for it in vain, which was said.
    in_vain: Option<Duration>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} waiting)", self.line().waiting.len())
    }
}

impl Queue {
    /// Hands work in. Outside of a runtime, which is being left then, it is done here.
    fn push(&self, work: Work) {
        let mut line = self.line();
        line.waiting.push_back(work);
        if line.since.is_some() {
            return;
        }
        line.since = Some(Instant::now());
        drop(line);
        let queue = self.clone();
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || queue.work())),
            Err(_) => queue.work(),
        }
    }

    fn work(&self) {
        loop {
            let mut line = self.line();
            let took = line.since.map(|since| since.elapsed());
            if line.in_vain.take().is_some() {
                let directory = &*self.place;
                tracing::info!(directory, ?took, "the token store answers again");
            }
            let Some(work) = line.waiting.pop_front() else {
                line.since = None;
                return;
            };
            line.since = Some(Instant::now());
            drop(line);
            // It tells that it was given up by not telling anything; the others wait for their turn.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }

    /// Whether the same piece of work has been under way for so long, or waited for.
    fn stands_still(&self, patience: Duration) -> bool {
        let line = self.line();
        line.since.is_some_and(|since| since.elapsed() >= patience) || line.in_vain.is_some_and(|lost| lost >= patience)
    }

    /// What whoever waits is told, and the log once.
    fn stuck(&self, patience: Duration) -> io::Error {
        let place = &*self.place;
        let mut line = self.line();
        let before = line.in_vain;
        let is_still = line.since.is_some(); // else it has just come to its end
        line.in_vain = before.max(is_still.then_some(patience));
        drop(line);
        if is_still && before.is_none() {
            tracing::warn!(directory = place, "the token store does not answer: until it does it is done without");
        }
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the token store ({place}) has not answered within {patience:?}"),
        )
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Files in a directory of the test's own, which is removed at its end.
    struct Own(Files, std::path::PathBuf);

    impl Own {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cupbearer-files-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(Files::open(&path).unwrap(), path)
        }

        /// Holds up everything that is handed in later.
        fn hold_up(&self) -> mpsc::Sender<()> {
            let (go_on, held) = mpsc::channel();
            self.0.queue.push(Box::new(move || {
                let _ = held.recv();
            }));
            go_on
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.1);
        }
    }

    fn a() -> String {
        "a".to_owned()
    }

    #[tokio::test]
    async fn what_was_handed_in_is_done_in_order_whoever_still_waits_for_it() {
        let files = Own::new("order");
        let go_on = files.hold_up();
        for number in 0..100 {
            let mut writing = Box::pin(files.0.write(a(), vec![number], LONG));
            assert!(poll_once(writing.as_mut()).is_none(), "it waits, and is given up here");
        }
        files.0.remove("b".to_owned());
        let reading = files.0.read(a(), LONG);
        go_on.send(()).unwrap();
        assert_eq!(reading.await.unwrap(), [99]);
        files.0.remove(a());
        assert!(!files.0.exists(a()).await);
    }

    /// Polls once.
    fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_lock_is_held_until_all_is_written_that_its_owner_handed_in() {
        let (files, other) = (Own::new("lock"), Own::new("lock-of-another"));
        let other_process = Files { directory: Arc::clone(&files.0.directory), ..other.0.clone() };
        let lock = files.0.lock("l".to_owned()).await.unwrap().expect("nobody has it");
        let go_on = files.hold_up();
        let mut writing = Box::pin(files.0.write(a(), vec![1], LONG));
        assert!(poll_once(writing.as_mut()).is_none());
        drop((writing, lock));
        assert!(other_process.lock("l".to_owned()).await.unwrap().is_none());
        go_on.send(()).unwrap();
        while other_process.lock("l".to_owned()).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(other_process.read(a(), LONG).await.unwrap(), [1]);
    }

    #[tokio::test]
    async fn work_that_panics_or_hangs_holds_up_neither_the_next_one_nor_who_waits() {
        let files = Own::new("panic");
        let given_up: io::Result<()> = files.0.run(SHORT, |_| panic!("as a test wants it")).await;
        assert!(given_up.is_err());
        files.0.write(a(), vec![1], LONG).await.unwrap();
        let go_on = files.hold_up();
        let began = Instant::now();
        for _ in 0..100 {
            assert_eq!(files.0.read(a(), SHORT).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert!(began.elapsed() < 2 * SHORT, "only the first one waits");
        assert!(files.0.queue.line().waiting.len() < 2, "what failed at once is not left to be done");
        go_on.send(()).unwrap();
        while files.0.read(a(), SHORT).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn outside_of_a_runtime_it_is_done_at_once() {
        let files = Own::new("outside");
        files.0.directory.write("a", b"1").unwrap();
        files.0.remove(a());
        assert!(!files.0.directory.exists("a"));
    }

    #[test]
    fn two_writers_of_one_process_id_are_not_in_each_others_way() {
        let files = Own::new("writers");
        std::thread::scope(|scope| {
            for byte in [1, 2] {
                let directory = Directory::open(&files.1).unwrap();
                scope.spawn(move || {
                    for _ in 0..100 {
                        directory.write("a", &[byte; 10_000]).expect("nobody takes our file away");
                    }
                });
            }
            for _ in 0..100 {
                let read = files.0.directory.read("a").unwrap_or_default();
                assert!(read.len().is_multiple_of(10_000) && read.windows(2).all(|pair| pair[0] == pair[1]), "torn");
            }
        });
    }
}
