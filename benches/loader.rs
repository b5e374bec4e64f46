//! mm's part of `loader.py`: images per second of the loader (decode, resize to 256, center crop of 224, normalize,
//! batch).
//!
//! Usage: `loader MANIFEST|SHARDS EPOCHS`, where SHARDS may be URLs with braces. Prints the best epoch.

use mm_core::{Modality, Processor};
use mm_data::{
    ImageProcessor, ImageProcessorConfig, Loader, LoaderConfig, Manifest, ManifestConfig, UrlFetcher,
    transform::{ImageTransform, Resize},
};
use mm_hub::storage::Storage;
use std::{
    collections::BTreeMap,
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// Data sets by URL, copied into a folder.
struct Fetcher(Storage);

impl UrlFetcher for Fetcher {
    fn fetch(&self, _: &str) -> Result<PathBuf, String> {
        Err("no cell of these tables is a URL".into())
    }

    fn fetch_data(&self, url: &str) -> Result<PathBuf, String> {
        self.0.fetch(url).map_err(|error| mm_hub::describe(&error))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    mm_core::retain_freed_memory();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, manifest, epochs] = arguments.as_slice() else { return Err("usage: loader MANIFEST|SHARDS EPOCHS".into()) };
    let cache = std::env::temp_dir().join(format!("mm-bench-loader-{}", std::process::id()));
    mm_data::set_url_fetcher(Fetcher(Storage::new(&cache)));
    let result = measure(manifest, epochs.parse()?);
    if cache.exists() {
        std::fs::remove_dir_all(&cache)?;
    }
    let (best, first) = result?;
    println!("{best:.1} {first:.1}");
    Ok(())
}

/// Images per second: of the fastest epoch, and of the first one with all that comes before it (opening the table, copying
/// shards).
fn measure(manifest: &str, epochs: u64) -> Result<(f64, f64), Box<dyn Error>> {
    let opened = Instant::now();
    let config = ManifestConfig { manifest: manifest.into(), ..ManifestConfig::default() };
    let manifest = Arc::new(Manifest::open(&config, Path::new("."))?);
    let transform =
        ImageTransform { resize: Some(Resize::ShortestEdge(256)), crop: Some((224, 224)), ..ImageTransform::default() };
    let processor: Arc<dyn Processor> =
        Arc::new(ImageProcessor::new(ImageProcessorConfig { transform, ..ImageProcessorConfig::default() }));
    let rows = (0..manifest.rows.len()).collect();
    let loader_config = LoaderConfig { batch_size: 64, num_workers: 2, ..LoaderConfig::default() };
    let loader = Loader::builder(manifest)
        .rows(rows)
        .processors(BTreeMap::from([(Modality::IMAGE, processor)]))
        .config(loader_config)
        .seed(0)
        .for_training()
        .build()?;
    let (mut best, mut first) = (0f64, 0f64);
    for epoch in 0..epochs {
        let start = Instant::now();
        let mut seen = 0;
        for batch in loader.epoch(epoch, 0) {
            seen += batch?.rows.len();
        }
        best = best.max(seen as f64 / start.elapsed().as_secs_f64());
        if epoch == 0 {
            first = seen as f64 / opened.elapsed().as_secs_f64();
        }
    }
    Ok((best, first))
}
