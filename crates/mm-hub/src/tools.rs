//! Programs that mm or its build can use: ffmpeg and nasm.

use crate::{
    archive::{MAX_BYTES, unzip},
    error::{At, Context, Result, describe},
    fetch::download,
    packages::{from_apt, from_pip, unpack_deb},
    paths::{cache, create_dir, lock, program},
    report::note,
};
use std::path::PathBuf;

/// The downloaded ffmpeg, which mm uses when there is none on the `PATH`.
pub fn downloaded_ffmpeg() -> PathBuf {
    cache().join("ffmpeg/ffmpeg")
}

/// Downloads ffmpeg, which decodes video, unless there is one.
pub fn ffmpeg(force: bool) -> Result<()> {
    let target = downloaded_ffmpeg();
    if !force && (program(&["ffmpeg"]).is_some() || target.exists()) {
        return Ok(());
    }
    let folder = target.parent().context("the path has no parent folder")?.to_owned();
    create_dir(&folder)?;
    let _lock = lock(&folder.join("lock"), "another process downloads ffmpeg; waiting for it …")?;
    if !force && target.exists() {
        return Ok(());
    }
    note("ffmpeg: downloading …");
    let missing = "ffmpeg is only needed for video; install it (Debian: apt-get install ffmpeg)";
    let remote = from_pip("imageio-ffmpeg").context(missing)?;
    let wheel = folder.join("imageio-ffmpeg.whl");
    download(&remote, &wheel).context(missing)?;
    let partial = folder.join("unpacked.partial");
    let _ = std::fs::remove_dir_all(&partial);
    unzip(&wheel, &partial, MAX_BYTES, |n| n.contains("/binaries/ffmpeg"))?;
    let binaries = partial.join("imageio_ffmpeg/binaries");
    let found = std::fs::read_dir(&binaries)
        .with_context(|| format!("the package contains no ffmpeg for this machine; {missing}"))?
        .next()
        .context(missing)?
        .at(&binaries, "read")?
        .path();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&found, std::fs::Permissions::from_mode(0o755)).at(&found, "written")?;
    }
    std::fs::rename(&found, &target).at(&target, "written")?;
    let _ = std::fs::remove_dir_all(&partial);
    let _ = std::fs::remove_file(&wheel);
    Ok(())
}

/// The downloaded nasm; xtask adds its folder to cargo's `PATH`.
pub fn downloaded_nasm() -> PathBuf {
    cache().join("nasm/usr/bin/nasm")
}

/// Downloads nasm, which builds libjpeg-turbo's assembly. Without it, jpegs are decoded by its C code to the same
/// pixels but slower, so a failure is only a warning.
pub fn nasm(force: bool) {
    let (target, tried) = (downloaded_nasm(), cache().join("nasm/tried"));
    if program(&["nasm"]).is_some() || (!force && (target.exists() || tried.exists())) {
        return;
    }
    let folder = cache().join("nasm");
    let fetch = || -> Result<()> {
        create_dir(&folder)?;
        let _lock = lock(&folder.join("lock"), "another process downloads nasm; waiting for it …")?;
        if !force && (target.exists() || tried.exists()) {
            return Ok(());
        }
        std::fs::write(&tried, "").at(&tried, "written")?;
        unpack_deb(&from_apt("nasm", &folder)?, &folder)?;
        let _ = std::fs::remove_dir_all(folder.join("apt"));
        Ok(())
    };
    if let Err(error) = fetch() {
        note(format!(
            "no nasm, so jpegs are decoded without libjpeg's assembly, slower (Debian: apt-get install nasm): {}",
            describe(&error)
        ));
    }
}
