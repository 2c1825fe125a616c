//! Names: folders, renames, and files as a whole.
//!
//! A name made, moved or removed is durable only after [`sync_dir`] of its folder
//! (fsync(2), "Calling fsync() does not necessarily ensure …").

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use crate::file::File;
use crate::future::{run, run_with};
use crate::op::{DirEntry, Metadata, Op, OpenOptions, Space};
use crate::time::sleep;

/// So much of a large file goes at a time,
const BIT_BYTES: u64 = 32 << 20;
/// and so long is paused after each.
const BIT_PAUSE: Duration = Duration::from_millis(25);

/// What is known of a path.
pub async fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    match run_with(Op::Stat {
        path: path.as_ref().to_owned(),
        out: None,
    })
    .await
    {
        (
            Ok(_),
            Op::Stat {
                out: Some(metadata),
                ..
            },
        ) => Ok(metadata),
        (Err(e), _) => Err(e),
        (Ok(_), op) => unreachable!("a stat came back as {op:?}"),
    }
}

/// The room on the file system that holds a path.
pub async fn space(path: impl AsRef<Path>) -> io::Result<Space> {
    let path = path.as_ref().to_owned();
    match run_with(Op::StatFs { path, out: None }).await {
        (
            Ok(_),
            Op::StatFs {
                out: Some(space), ..
            },
        ) => Ok(space),
        (Err(e), _) => Err(e),
        (Ok(_), op) => unreachable!("a file system's room came back as {op:?}"),
    }
}

/// The entries of a folder, sorted by name. Names that are not UTF-8 are left out.
pub async fn read_dir(path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
    match run_with(Op::ReadDir {
        path: path.as_ref().to_owned(),
        out: Vec::new(),
    })
    .await
    {
        (Ok(_), Op::ReadDir { out, .. }) => Ok(out),
        (Err(e), _) => Err(e),
        (Ok(_), op) => unreachable!("a listing came back as {op:?}"),
    }
}

/// Makes a folder and those above it; durable when this returns.
pub async fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in path.ancestors().filter(|a| !a.as_os_str().is_empty()) {
        match metadata(ancestor).await {
            Ok(found) if found.is_dir => {
                // A life that was killed may have made it and not got to its parent's flush.
                if ancestor.parent().is_some() {
                    sync_dir(parent(ancestor)).await?;
                }
                break;
            }
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(ancestor),
            Err(e) => return Err(e),
        }
    }
    for folder in missing.into_iter().rev() {
        match run(Op::Mkdir {
            path: folder.to_owned(),
        })
        .await
        {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        sync_dir(parent(folder)).await?;
    }
    Ok(())
}

/// The folder that holds a path's name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes a file (`unlink(2)`).
pub async fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    run(Op::Unlink {
        path: path.as_ref().to_owned(),
        dir: false,
    })
    .await
    .map(drop)
}

/// Removes a file, a large one bit by bit from its end, with pauses. A file system that tells its disk of the
/// blocks that it has no use for any more (the mount option `discard`) keeps everybody waiting who flushes
/// meanwhile: three files of 1 GB that went at once held up a neighbour's `fdatasync` for 0.4 s in all, up to 34 ms
/// each, and bit by bit for less than 8 ms. Whoever still reads the file finds it short.
pub async fn remove_file_gently(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let mut len = metadata(path).await?.len;
    if len > BIT_BYTES {
        let file = File::open(path, OpenOptions::new().write(true)).await?;
        while len > BIT_BYTES {
            len -= BIT_BYTES;
            file.set_len(len).await?;
            sleep(BIT_PAUSE).await;
        }
    }
    remove_file(path).await
}

/// Removes a folder with all that is in it, large files as [`remove_file_gently`] does.
pub async fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    // Depth first, without recursion: a folder is removed when it comes up for the second time.
    let mut stack: Vec<(PathBuf, bool)> = vec![(path.as_ref().to_owned(), false)];
    while let Some((folder, emptied)) = stack.pop() {
        if emptied {
            run(Op::Unlink {
                path: folder,
                dir: true,
            })
            .await?;
            continue;
        }
        let entries = read_dir(&folder).await?;
        stack.push((folder.clone(), true));
        for entry in entries {
            let path = folder.join(&entry.name);
            if entry.is_dir {
                stack.push((path, false));
            } else {
                remove_file_gently(path).await?;
            }
        }
    }
    Ok(())
}

/// Renames a file or folder, replacing a file of the new name (`rename(2)`).
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    run(Op::Rename { from, to }).await.map(drop)
}

/// Makes the names in a folder durable.
pub async fn sync_dir(path: impl AsRef<Path>) -> io::Result<()> {
    run(Op::SyncDir {
        path: path.as_ref().to_owned(),
    })
    .await
    .map(drop)
}

/// A whole file.
pub async fn read(path: impl AsRef<Path>) -> io::Result<Bytes> {
    let file = File::open(path, OpenOptions::new().read(true)).await?;
    let len = usize::try_from(file.len().await?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    file.read_at(0, len).await
}

/// Replaces a whole file so that after a crash either the old or the new content is there, and
/// makes it durable: temporary file, fdatasync, rename, fsync of the folder.
pub async fn write_atomic(path: impl AsRef<Path>, content: Vec<Bytes>) -> io::Result<()> {
    let path = path.as_ref();
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let options = OpenOptions::new().write(true).create(true).truncate(true);
    let file = File::open(&temporary, options).await?;
    file.write_at(0, content).await?;
    file.sync_data().await?;
    drop(file);
    rename(&temporary, path).await?;
    sync_dir(parent(path)).await
}
