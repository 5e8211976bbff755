//! A small file system of its own, which can be full.
//!
//! Owns the image, its mount and what fills it. Mounting needs an administrator and a loop device; without them there is no disk.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

const MEBI: u64 = 1024 * 1024;

/// A mounted file system; it is unmounted and removed when this is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Mounts a new file system of so many mebibytes. `None` if that is not allowed or not possible here.
    pub fn mount(mebibytes: u64) -> Option<Self> {
        let disk = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let image = disk.folder.path().join("image");
        let made = File::create(&image).and_then(|file| file.set_len(mebibytes * MEBI));
        made.expect("a file with holes");
        fs::create_dir(disk.path()).expect("an empty folder");
        // Nothing is reserved for the administrator, who would find room where others find none.
        let formatted = succeeds(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        let mounted = formatted && succeeds(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()));
        mounted.then_some(disk)
    }

    /// The folder that it is mounted on.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Takes all room that there is, until [`make_room`](Self::make_room).
    pub fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a new file");
        let chunk = vec![0; 1024 * 1024];
        // The last bytes that are left may be fewer than a chunk.
        for size in [chunk.len(), 4096, 1] {
            while filler.write_all(&chunk[..size]).is_ok() {}
        }
    }

    /// Gives the room back.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file there keeps it until the file is closed.
        succeeds(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

/// Forbids every write to a file, its owner's and the administrator's too, also to those who have opened it; or allows it again.
/// Whether that was possible: it needs an administrator and a file system that knows the attribute.
pub(crate) fn set_immutable(file: &Path, is_immutable: bool) -> bool {
    let change = if is_immutable { "+i" } else { "-i" };
    succeeds(Command::new("chattr").arg(change).arg(file))
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
