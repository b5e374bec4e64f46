//! Folders of models and runs where they lie: in object stores (`s3://`, `gs://`, `az://`), whose files are listed, and in
//! repositories of the hub (`hf://ORG/NAME[@REVISION]`).
//!
//! A folder is copied as a snapshot of what the store lists: a file that was changed is copied again, one that was removed
//! is not in the next snapshot, and one that is unchanged is not read again. A process that asks twice gets one snapshot.

pub(super) mod snapshot;

use super::{Location, STORES, Storage, describe_as, download::download, is_of, root_cause};
use crate::{
    error::{At, Context, Error, Result, bail},
    fetch::{is_offline, progress_bar},
    hub::{Hub, variable},
    model_files::is_unused_in_run,
    paths::is_below,
    report::note,
};
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt, path::Path as ObjectPath};
use snapshot::{FolderCopy, FolderFile};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::PoisonError,
};

/// The most files of a folder: more are no model.
const MAX_FILES: usize = 10_000;

/// Files of which a folder has one: a model of transformers or sentence-transformers, one of `open_clip`, an adapter, a
/// run of mm.
const MODEL_FILES: [&str; 5] =
    ["config.json", "modules.json", "open_clip_config.json", "adapter_config.json", "config.toml"];

/// What a URL has to name.
const EXPECTED: &str = "the folder of a model (config.json, weights …) or of a run of mm (config.toml)";

/// A file that a store lists.
struct Listed {
    file: FolderFile,
    meta: ObjectMeta,
}

impl Storage {
    /// The path of a copy of the model's or run's folder at a URL, which is checked once by each process and stays as
    /// long as the process lives. Files that mm does not read are left out: weights in other formats, states of training.
    ///
    /// # Errors
    /// When there is no such folder, it holds no model, the server refuses it or does not answer; when the cache has no
    /// space; for a URL of a web server, which lists no folders.
    pub fn fetch_folder(&self, url: &str) -> Result<PathBuf> {
        let url = check_scheme(url.trim_end_matches('/'))?;
        let mut given = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((snapshot, _)) = given.get(url) {
            return Ok(snapshot.clone());
        }
        let (snapshot, pin) = if is_of(url, &["hf"]) {
            (Hub::from_environment()?.pull(hub_name(url)?)?, None)
        } else {
            let copy = self.copies.folder_of(url)?;
            let (copy, snapshot) = if is_offline() { offline(copy, url)? } else { self.update(copy, url)? };
            let pin = copy.use_snapshot(&snapshot)?;
            (snapshot, pin)
        };
        given.insert(url.to_owned(), (snapshot.clone(), pin));
        Ok(snapshot)
    }

    /// The snapshot of what the store lists now.
    fn update(&self, folder: PathBuf, url: &str) -> Result<(FolderCopy, PathBuf)> {
        let location = self.locate(url)?;
        // What is no model leaves no folder here.
        if !folder.is_dir() {
            self.list_model(&location)?;
        }
        // Another process may copy the folder for a long time; what counts is what is listed after it.
        let copy = FolderCopy::open(folder, url)?;
        let listed = self.list_model(&location)?;
        let files: Vec<FolderFile> = listed.iter().map(|listed| listed.file.clone()).collect();
        if let Some(snapshot) = copy.find(&files)? {
            return Ok((copy, snapshot));
        }
        let mut missing = Vec::new();
        for listed in &listed {
            if !copy.has(&listed.file)? {
                missing.push(listed);
            }
        }
        let bytes: u64 = missing.iter().map(|listed| listed.file.bytes).sum();
        let failed =
            || format!("{url}: {} of its {} files are to be copied, {bytes} bytes", missing.len(), files.len());
        // This process keeps the folder, of which others can delete nothing.
        if self.copies.lacks_room(bytes)? {
            copy.prune(&files)?;
        }
        self.copies.make_room(bytes).with_context(failed)?;
        let bar = progress_bar(url, 0, Some(bytes));
        for listed in &missing {
            let partial = copy.partial(&listed.file)?;
            let copied = self.copy_file(&location, listed, &partial, &copy.blob(&listed.file)?, &bar);
            if copied.is_err() {
                let _ = fs::remove_file(&partial);
            }
            copied?;
        }
        bar.finish_and_clear();
        note(format!("copied {url} ({} of {} files, {} MB)", missing.len(), files.len(), bytes >> 20));
        let snapshot = copy.make(&files)?;
        Ok((copy, snapshot))
    }

    /// Copies a file of a folder; it has its name once it is whole.
    fn copy_file(
        &self,
        folder: &Location,
        listed: &Listed,
        partial: &Path,
        blob: &Path,
        bar: &indicatif::ProgressBar,
    ) -> Result<()> {
        let Listed { file, meta } = listed;
        let url = format!("{}/{}", folder.url, file.name);
        let location = Location { url, path: meta.location.clone(), ..folder.clone() };
        if !self.runtime()?.block_on(download(&location, meta, partial, bar))? {
            bail!("{}: the server states no size; expected a store that does", location.url);
        }
        fs::rename(partial, blob).at(blob, "written")
    }

    /// The files of a model's folder that mm reads, by name.
    fn list_model(&self, folder: &Location) -> Result<Vec<Listed>> {
        let url = &folder.url;
        let mut listed = self.list_files(folder)?;
        let names: BTreeSet<String> = listed.iter().map(|listed| listed.file.name.clone()).collect();
        let all: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let Some(first) = all.first() else {
            let is_file = self.runtime()?.block_on(folder.store.head(&folder.path)).is_ok();
            let found = if is_file { "a file" } else { "no file below it" };
            bail!("{url}: found {found}, expected {EXPECTED}; check the bucket and the path");
        };
        // A folder with the runs of several seeds has them one below it.
        let is_model = |name: &&str| {
            MODEL_FILES.contains(name) || name.split_once('/').is_some_and(|(_, below)| below == "config.toml")
        };
        if !all.iter().any(is_model) {
            let others = if all.len() > 1 { format!(" and {} more", all.len() - 1) } else { String::new() };
            bail!(
                "{url}: found {first}{others} below it, and neither config.json nor config.toml, expected {EXPECTED}; \
                 give the URL of that folder"
            );
        }
        listed.retain(|listed| !is_unused_in_run(&listed.file.name, &all));
        Ok(listed)
    }

    /// All files below a URL, by name.
    fn list_files(&self, folder: &Location) -> Result<Vec<Listed>> {
        use tokio_stream::StreamExt;
        let Location { url, store, path, .. } = folder;
        let mut objects = Vec::new();
        self.runtime()?.block_on(async {
            let mut stream = store.list((!path.as_ref().is_empty()).then_some(path));
            while let Some(object) = stream.next().await {
                objects.push(object.map_err(|error| describe_list(url, error))?);
                if objects.len() > MAX_FILES {
                    bail!("{url}: found more than {MAX_FILES} files, expected {EXPECTED}");
                }
            }
            Ok::<(), Error>(())
        })?;
        let mut listed = Vec::with_capacity(objects.len());
        for meta in objects {
            let name = name_below(path, &meta.location, url)?;
            let (bytes, e_tag, modified) = (meta.size, meta.e_tag.clone(), meta.last_modified.timestamp());
            listed.push(Listed { file: FolderFile { name, bytes, e_tag, modified }, meta });
        }
        // Some programs write an empty file for each folder.
        let folders: BTreeSet<String> = listed
            .iter()
            .flat_map(|listed| Path::new(&listed.file.name).ancestors().skip(1))
            .map(|folder| folder.to_string_lossy().into_owned())
            .collect();
        listed.retain(|Listed { file, .. }| !file.name.is_empty() && (file.bytes > 0 || !folders.contains(&file.name)));
        listed.sort_by(|a, b| a.file.name.cmp(&b.file.name));
        Ok(listed)
    }
}

/// The path of a file below a folder; empty for the folder itself.
fn name_below(folder: &ObjectPath, file: &ObjectPath, url: &str) -> Result<String> {
    let (folder, file) = (folder.as_ref(), file.as_ref());
    if folder == file {
        return Ok(String::new());
    }
    let below =
        if folder.is_empty() { Some(file) } else { file.strip_prefix(folder).and_then(|f| f.strip_prefix('/')) };
    let is_plain = |name: &&str| is_below(Path::new(name)) && !name.contains('\\');
    match below.filter(is_plain) {
        Some(name) => Ok(name.to_owned()),
        None => bail!("{url}: the server lists `{file}`, expected files below this folder; nothing was copied"),
    }
}

/// The snapshot that was used last, where nothing may be asked for.
fn offline(folder: PathBuf, url: &str) -> Result<(FolderCopy, PathBuf)> {
    let missing = || Error::Offline { what: url.to_owned() };
    if !folder.is_dir() {
        return Err(missing());
    }
    let copy = FolderCopy::open(folder, url)?;
    let snapshot = copy.last_used().ok_or_else(missing)?;
    Ok((copy, snapshot))
}

/// `ORG/NAME[@REVISION]` of a URL of the hub.
fn hub_name(url: &str) -> Result<&str> {
    let name = url.split_once("://").map_or("", |(_, name)| name);
    let parts = name.split('@').next().unwrap_or_default().split('/').count();
    if parts > 2 || ["datasets/", "spaces/"].iter().any(|kind| name.starts_with(kind)) {
        bail!("{url}: expected a model of the hub as a whole, hf://ORG/NAME[@REVISION]");
    }
    Ok(name)
}

/// Refuses a URL of which no folder can be read. A web server names no files of a folder; the hub's pages name a
/// repository.
fn check_scheme(url: &str) -> Result<&str> {
    const STORES_AND_HUB: &str = "s3://BUCKET/FOLDER, gs://, az:// or hf://ORG/NAME[@REVISION]";
    if is_of(url, &STORES) || is_of(url, &["hf"]) {
        return Ok(url);
    }
    if !is_of(url, &["http", "https"]) {
        bail!("{url}: found no URL of a model, expected {STORES_AND_HUB}");
    }
    let hub = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    let of_hub = url.strip_prefix(hub.trim_end_matches('/')).map(|path| path.trim_matches('/'));
    let mut parts = of_hub.unwrap_or_default().split('/');
    if let (Some(organization), Some(name)) = (parts.next(), parts.next()) {
        bail!("{url}: found a page of the hub, expected hf://{organization}/{name}");
    }
    bail!(
        "{url}: found a web server, which does not list the files of a folder, expected {STORES_AND_HUB}; or download the \
         folder, and give its path"
    )
}

/// An error of listing, with what to do about it.
fn describe_list(url: &str, error: StoreError) -> Error {
    if let StoreError::InvalidPath { .. } = error {
        let what = format!(
            "{url}: the server lists a file whose name is no path below this folder; expected names without `..` and \
             empty parts, nothing was copied"
        );
        return Error::Context { what, source: error.to_string().into() };
    }
    // The client of the stores does not tell these apart where it lists.
    let root = root_cause(&error);
    let answered = |status: u16| root.contains(&format!("status code: {status}"));
    if answered(404) {
        return Error::Context { what: format!("{url}: the server has no such bucket"), source: root.into() };
    }
    if answered(401) || answered(403) {
        let what = format!(
            "{url}: the server refuses to list it; check the credentials in the environment, and who may list the bucket"
        );
        return Error::Context { what, source: root.into() };
    }
    describe_as(url, "cannot be listed", "the server has no such bucket", error)
}

#[cfg(test)]
mod tests;
