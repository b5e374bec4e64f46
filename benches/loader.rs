//! mm's part of `loader.py`: images per second of the loader (decode, resize to 256, center crop of 224, normalize,
//! batch).
//!
//! Usage: `loader MANIFEST EPOCHS`. Prints the best epoch.

use mm_core::{Modality, Processor};
use mm_data::{
    ImageProcessor, ImageProcessorConfig, Loader, LoaderConfig, Manifest, ManifestConfig,
    transform::{ImageTransform, Resize},
};
use std::{collections::BTreeMap, error::Error, path::Path, sync::Arc, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    mm_core::retain_freed_memory();
    let arguments: Vec<String> = std::env::args().collect();
    let [_, manifest, epochs] = arguments.as_slice() else { return Err("usage: loader MANIFEST EPOCHS".into()) };
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
    let mut best = 0f64;
    for epoch in 0..epochs.parse::<u64>()? {
        let start = Instant::now();
        let mut seen = 0;
        for batch in loader.epoch(epoch, 0) {
            seen += batch?.rows.len();
        }
        best = best.max(seen as f64 / start.elapsed().as_secs_f64());
    }
    println!("{best:.1}");
    Ok(())
}
