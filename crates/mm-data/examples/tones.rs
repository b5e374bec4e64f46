//! Generates recordings of two instruments, and loads them in batches of spectrograms with their names:
//! `cargo run --release -p mm-data --example tones`

use mm_core::{Error, Modality, ProcessContext, Processor, Source, Tensor};
use mm_data::{
    AudioProcessor, AudioProcessorConfig, Dataset, Loader, LoaderConfig, Manifest, ManifestConfig,
    decode::{Audio, write_wav},
    transform::MelConfig,
};
use std::{f32::consts::TAU, path::Path, sync::Arc};

const SAMPLE_RATE: u32 = 16_000;
const INSTRUMENTS: [&str; 2] = ["flute", "organ"];

/// The name of an instrument → its number.
struct InstrumentProcessor;

impl Processor for InstrumentProcessor {
    fn process(&self, source: &Source, _: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let Source::Text(name) = source else {
            return Err(Error::Sample(format!("found {source:?}, expected a name")));
        };
        let number = INSTRUMENTS.iter().position(|known| known == name);
        let number = number.ok_or_else(|| Error::Sample(format!("found the instrument `{name}`")))?;
        Tensor::from_slice(&[number as i64])
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        "instrument".into()
    }
}

/// Writes recordings of half a second to a second, and the table that names them.
fn generate(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut table = String::from("id,audio,text\n");
    for note in 0..24u32 {
        let (instrument, frequency) = (INSTRUMENTS[note as usize % 2], 220.0 * 2f32.powf(note as f32 / 12.0));
        let overtones = if instrument == "organ" { 6 } else { 1 };
        let samples = (0..SAMPLE_RATE / 2 + note * 300).map(|n| {
            let phase = TAU * frequency * n as f32 / SAMPLE_RATE as f32;
            (1..=overtones).map(|k| (phase * k as f32).sin() / k as f32).sum::<f32>() / 3.0
        });
        let audio = Audio { samples: samples.collect(), sample_rate: SAMPLE_RATE };
        write_wav(&folder.join(format!("{note}.wav")), &audio)?;
        table += &format!("{note},{note}.wav,{instrument}\n");
    }
    Ok(std::fs::write(folder.join("notes.csv"), table)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    generate(folder.path())?;
    let config = ManifestConfig { manifest: "notes.csv".into(), ..ManifestConfig::default() };
    let notes = Manifest::open(&config, folder.path())?;
    println!("{} recordings", notes.len());
    let spectrograms = AudioProcessor::new(AudioProcessorConfig {
        mel: MelConfig::kaldi(SAMPLE_RATE, 40),
        max_seconds: 5.0,
        normalize: true,
        spec_augment: None,
    })?;
    let loader = Loader::builder(Arc::new(notes))
        .processor(Modality::AUDIO, Arc::new(spectrograms))
        .processor(Modality::TEXT, Arc::new(InstrumentProcessor))
        .config(LoaderConfig { batch_size: 8, ..LoaderConfig::default() })
        .seed(1)
        .for_training()
        .build()?;
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        let (audio, text) = (&batch.modalities[&Modality::AUDIO], &batch.modalities[&Modality::TEXT]);
        let numbers = text.input.values.to_vec::<i64>()?;
        println!("{:?} with mask {:?}: instruments {numbers:?}", audio.input.values, audio.input.mask);
    }
    Ok(())
}
