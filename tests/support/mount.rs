//! Disks that are full, read-only or not ours. Such conditions need root (as CI has it); where they cannot be made that is
//! said loudly, and with `DRIVETRAIN_REQUIRE_KAFKA=1` (CI's mark) it is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A condition of a path; undone when dropped.
pub struct Condition {
    path: PathBuf,
    undo: &'static [&'static str],
}

impl Drop for Condition {
    fn drop(&mut self) {
        let [program, arguments @ ..] = self.undo else { return };
        drop(Command::new(program).args(arguments).arg(&self.path).output());
    }
}

impl Condition {
    /// A disk of its own of this size (`700k`, `2m`) at a new directory.
    pub fn disk(path: &Path, size: &str) -> Option<Condition> {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={size}");
        made(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "drivetrain-test"]).arg(path))?;
        Some(Condition { path: path.to_path_buf(), undo: &["umount", "--lazy"] })
    }

    /// Another size for a disk of [`Self::disk`].
    pub fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        made(Command::new("mount").args(["-o", &size]).arg(&self.path)).expect("a tmpfs can be resized");
    }

    /// A directory in which nothing can be written, whoever asks; files that are open stay so.
    pub fn read_only(path: &Path) -> Option<Condition> {
        std::fs::create_dir_all(path).unwrap();
        made(Command::new("mount").arg("--bind").args([path, path]))?;
        let condition = Condition { path: path.to_path_buf(), undo: &["umount", "--lazy"] };
        made(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(path))?;
        Some(condition)
    }

    /// A directory, with everything in it, that nobody may change.
    pub fn forbidden(path: &Path) -> Option<Condition> {
        std::fs::create_dir_all(path).unwrap();
        made(Command::new("chattr").args(["-R", "+i"]).arg(path))?;
        Some(Condition { path: path.to_path_buf(), undo: &["chattr", "-R", "-i"] })
    }
}

fn made(command: &mut Command) -> Option<()> {
    let problem = match command.output() {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let required = std::env::var("DRIVETRAIN_REQUIRE_KAFKA").is_ok_and(|v| v == "1");
    assert!(!required, "DRIVETRAIN_REQUIRE_KAFKA=1, but {command:?} fails: {problem}");
    eprintln!("\n!!! SKIPPED, AND SO NOT SHOWN TO WORK: {command:?} fails: {problem}\n");
    None
}
