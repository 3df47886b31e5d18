//! A file that appears complete or not at all.

use std::fs::{File, Permissions};
use std::io;
use std::path::Path;

/// Puts what `write` writes under `path`, in one step.
///
/// The content goes to a temporary file in the same folder, reaches the disk (fsync) and is then renamed, so that under
/// `path` there is at any time the old file or the complete new one.
///
/// # Errors
/// What was tried, and what the operating system said. The old file is untouched then and the temporary one removed.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), (&'static str, io::Error)> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".weights-").suffix(".tmp");
    if let Some(permissions) = ordinary_permissions() {
        builder.permissions(permissions);
    }
    let mut file = builder.tempfile_in(folder).map_err(|error| ("create", error))?;
    write(file.as_file_mut()).and_then(|()| file.as_file().sync_all()).map_err(|error| ("write", error))?;
    file.persist(path).map_err(|error| ("rename", error.error))?;
    sync_folder(folder).map_err(|error| ("write", error))
}

/// What `open` gives a new file; temporary files are otherwise readable by their owner alone.
fn ordinary_permissions() -> Option<Permissions> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    #[cfg(not(unix))]
    return None;
}

/// Makes the new name of a file as durable as its content, where the system has a notion of it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
