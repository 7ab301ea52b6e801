//! A thread whose root directory is an empty one of its own: what the input asks for
//! is done for real, and reaches nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};

type Task = Box<dyn FnOnce() + Send>;

/// The thread, and the directory as it is seen from outside.
pub struct Jail {
    tasks: Mutex<(SyncSender<Task>, Receiver<()>)>,
    root: PathBuf,
}

impl Jail {
    /// Makes `$PODSPAWN_FUZZ_JAIL`, or a directory `jail` here, the thread's root.
    pub fn new() -> Self {
        let root = std::env::var_os("PODSPAWN_FUZZ_JAIL").map_or("jail".into(), PathBuf::from);
        fs::create_dir_all(&root).expect("the jail can be made");
        let root = fs::canonicalize(root).expect("it is there");
        let (tasks, inbox) = sync_channel::<Task>(0);
        let (done, outcome) = sync_channel(0);
        let inside = root.clone();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS).expect("a thread may have its own root");
            chroot(&inside).expect("run this by fuzz/run: it takes the right to chroot");
            chdir("/").expect("chdir");
            for task in inbox {
                task();
                done.send(()).expect("somebody waits");
            }
        });
        Self {
            tasks: Mutex::new((tasks, outcome)),
            root,
        }
    }

    /// Runs `task` inside, then removes all that it left.
    pub fn run(&self, task: impl FnOnce() + Send + 'static) {
        let tasks = self.tasks.lock().expect("one at a time");
        tasks.0.send(Box::new(task)).expect("the thread lives");
        tasks.1.recv().expect("a panic has aborted by now");
        empty(&self.root);
    }

    /// Where the jail's files are.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn empty(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(directory)
        .expect("ls")
        .map(|entry| entry.expect("entry"))
    {
        let path = entry.path();
        if entry.file_type().expect("kind").is_dir() {
            // Its mode may have been taken away.
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o700));
            empty(&path);
            fs::remove_dir(&path).expect("rmdir");
        } else {
            fs::remove_file(&path).expect("unlink");
        }
    }
}
