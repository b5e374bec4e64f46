//! Samples of runs, precomputed in the threads that decode before the thread of the run asks its processors for them.

use mm_core::{BuildContext, Modality, ProcessContext, Processor, Registry, Result, SendTensor, Source, Tensor};
use mm_data::{process_catching_panics, take_truncated};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The hash of an encoded or decoded file.
type Digest = [u8; 32];

/// A processor of a run, with its precomputed samples.
pub(crate) struct SampleCache {
    processor: Arc<dyn Processor>,
    samples: Mutex<HashMap<Digest, Shared>>,
}

/// A sample, and the number of values of requests that it was made for.
struct Shared {
    sample: Option<SendTensor>,
    users: usize,
}

/// A precomputed sample; it is there until this is dropped.
pub(crate) struct CachedSample {
    reader: Arc<SampleCache>,
    digest: Digest,
}

impl Drop for CachedSample {
    fn drop(&mut self) {
        let mut samples = self.reader.samples();
        if let Some(shared) = samples.get_mut(&self.digest) {
            shared.users -= 1;
            if shared.users == 0 {
                samples.remove(&self.digest);
            }
        }
    }
}

/// The hash of a value that is a file; `None` of other values, which are cheap to read.
fn digest(source: &Source) -> Option<Digest> {
    match source {
        Source::Bytes(file) => Some(*file.digest()),
        Source::Samples(audio) => Some(*audio.digest()),
        Source::Image(image) => Some(*image.digest()),
        _ => None,
    }
}

impl SampleCache {
    fn new(processor: Arc<dyn Processor>) -> Self {
        Self { processor, samples: Mutex::default() }
    }

    fn samples(&self) -> MutexGuard<'_, HashMap<Digest, Shared>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the sample of a file from what it was decoded to, and keeps it for the thread of the run, which asks for that of
    /// the file; `None` where the value is no file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn keep(self: &Arc<Self>, file: &Source, decoded: &Source) -> Result<Option<CachedSample>> {
        let Some(digest) = digest(file) else { return Ok(None) };
        if !self.use_shared(digest) {
            let sample = process_catching_panics(self.processor.as_ref(), decoded, &mut ProcessContext::eval());
            // Noted in this thread; runs cut longer values.
            take_truncated();
            let sample = Some(sample?.into_send()?);
            let mut samples = self.samples();
            // Another request may have made it meanwhile.
            samples.entry(digest).or_insert(Shared { sample, users: 0 }).users += 1;
        }
        Ok(Some(CachedSample { reader: self.clone(), digest }))
    }

    /// Whether the sample was made for another request and is used by this one too.
    fn use_shared(&self, digest: Digest) -> bool {
        self.samples().get_mut(&digest).map(|shared| shared.users += 1).is_some()
    }

    /// A copy of a precomputed sample.
    fn kept(&self, digest: Digest) -> Result<Option<Tensor>> {
        let mut samples = self.samples();
        let Some(shared) = samples.get_mut(&digest) else { return Ok(None) };
        let Some(sample) = shared.sample.take().map(Tensor::from) else { return Ok(None) };
        // Values that a clone shares are copied.
        let taken = sample.clone();
        shared.sample = Some(sample.into_send()?);
        Ok(Some(taken))
    }
}

impl Processor for SampleCache {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let kept = digest(source).filter(|_| !context.train).map(|digest| self.kept(digest)).transpose()?.flatten();
        kept.map_or_else(|| self.processor.process(source, context), Ok)
    }

    fn pad_value(&self) -> f64 {
        self.processor.pad_value()
    }

    fn is_sequence(&self) -> bool {
        self.processor.is_sequence()
    }

    fn pad_to_multiple_of(&self) -> i64 {
        self.processor.pad_to_multiple_of()
    }

    fn token_names(&self, source: &Source) -> Result<Vec<String>> {
        self.processor.token_names(source)
    }

    fn truncated(&self) -> Option<(usize, String)> {
        self.processor.truncated()
    }

    fn augments_while_decoding(&self) -> bool {
        self.processor.augments_while_decoding()
    }

    fn fingerprint(&self) -> String {
        self.processor.fingerprint()
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> Result<Tensor> {
        self.processor.augment(sample, context)
    }
}

/// Modalities whose values are decoded.
const MEDIA: [Modality; 3] = [Modality::IMAGE, Modality::AUDIO, Modality::VIDEO];

/// The processors of a run by modality, once it is built, of images, audio and videos. Processors of the same fingerprint,
/// as the members of an ensemble have them, are one.
#[derive(Clone, Default)]
pub(super) struct Readers(Arc<Mutex<BTreeMap<Modality, Vec<Arc<SampleCache>>>>>);

impl Readers {
    /// Those that were built.
    pub(super) fn by_modality(&self) -> BTreeMap<Modality, Vec<Arc<SampleCache>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, modality: Modality, processor: Arc<dyn Processor>) -> Arc<SampleCache> {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let readers = readers.entry(modality).or_default();
        let fingerprint = processor.fingerprint();
        if let Some(known) = readers.iter().find(|known| known.fingerprint() == fingerprint) {
            return known.clone();
        }
        let reader = Arc::new(SampleCache::new(processor));
        readers.push(reader.clone());
        reader
    }

    /// The encoders of a registry, with processors that are noted here.
    pub(super) fn registry(&self, encoders: &Arc<Registry>) -> Registry {
        let mut registry = Registry::clone(encoders);
        for kind in encoders.names() {
            let (encoders, readers, kind_of) = (encoders.clone(), self.clone(), kind.to_owned());
            registry.register_encoder(kind, move |settings, context| {
                let mut settings = settings.clone();
                if let Some(table) = settings.as_table_mut() {
                    table.insert("kind".to_owned(), kind_of.clone().into());
                }
                // Encoders inside this one are not noted: their values are parts of those of the request.
                let context = BuildContext {
                    scope: context.scope.clone(),
                    base_dir: context.base_dir.clone(),
                    field: context.field.clone(),
                    registry: &encoders,
                };
                let mut built = encoders.build(&settings, &context)?;
                let modality = built.encoder.modality();
                if MEDIA.contains(&modality) {
                    built.processor = readers.add(modality, built.processor);
                }
                Ok(built)
            });
        }
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{BuiltEncoder, Device, EncodedFile, Encoder, Error, Features, Input, Params};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The number of bytes of a file, and how often it was asked for.
    #[derive(Default)]
    struct Lengths(AtomicUsize);

    impl Processor for Lengths {
        fn process(&self, source: &Source, _: &mut ProcessContext) -> Result<Tensor> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match source {
                Source::Bytes(file) if !file.is_empty() => Tensor::from_slice(&[file.len() as i64]),
                other => Err(Error::Sample(format!("{other:?}"))),
            }
        }

        fn is_sequence(&self) -> bool {
            false
        }

        fn fingerprint(&self) -> String {
            "lengths".into()
        }
    }

    fn file(bytes: &[u8]) -> Source {
        Source::Bytes(EncodedFile::in_memory("file", bytes.to_vec()))
    }

    #[test]
    fn a_precomputed_sample_is_there_for_as_long_as_a_request_needs_it() {
        let processor = Arc::new(Lengths::default());
        let reader = Arc::new(SampleCache::new(processor.clone()));
        let calls = || processor.0.load(Ordering::Relaxed);
        let length = |source: &Source| -> Vec<i64> {
            reader.process(source, &mut ProcessContext::eval()).unwrap().to_vec().unwrap()
        };
        // In another thread; two requests have the same file.
        let keep = || reader.keep(&file(b"four"), &file(b"four")).unwrap().unwrap();
        let (first, second) = std::thread::scope(|scope| scope.spawn(|| (keep(), keep())).join().unwrap());
        assert_eq!(calls(), 1);
        drop(first);
        assert_eq!((length(&file(b"four")), length(&file(b"four")), calls()), (vec![4], vec![4], 1));
        assert_eq!((length(&file(b"other")), calls()), (vec![5], 2));
        drop(second);
        assert!(reader.samples().is_empty());
        assert_eq!((length(&file(b"four")), calls()), (vec![4], 3));
        // What cannot be read is an error, and what is no file is not precomputed.
        assert!(reader.keep(&file(b""), &file(b"")).is_err());
        assert!(reader.keep(&Source::Text("a".into()), &Source::Text("a".into())).unwrap().is_none());
    }

    impl Encoder for Lengths {
        fn encode(&self, input: &Input, _: bool) -> Result<Features> {
            Features::from_pooled(&input.values)
        }

        fn dim(&self) -> i64 {
            1
        }

        fn modality(&self) -> Modality {
            Modality::IMAGE
        }
    }

    #[test]
    fn an_encoder_of_a_run_computes_a_precomputed_sample_once() {
        let processor = Arc::new(Lengths::default());
        let (mut encoders, of_encoder) = (Registry::new(), processor.clone());
        encoders.register_encoder("lengths", move |_, _| {
            let encoder = Box::new(Lengths::default());
            let fingerprint = "lengths".to_owned();
            Ok(BuiltEncoder { processor: of_encoder.clone(), encoder, frozen: true, fingerprint })
        });
        let readers = Readers::default();
        let registry = readers.registry(&Arc::new(encoders));
        let params = Params::new(Device::Cpu);
        let settings: toml::Value = toml::from_str("kind = \"lengths\"").unwrap();
        let (base_dir, field) = (std::path::PathBuf::new(), "encoders.image".to_owned());
        let context = BuildContext { scope: params.scope(), base_dir, field, registry: &registry };
        let built = registry.build(&settings, &context).unwrap();
        let caches = readers.by_modality().remove(&Modality::IMAGE).unwrap();
        let kept = caches[0].keep(&file(b"four"), &file(b"four")).unwrap().unwrap();
        let length = || -> Vec<i64> {
            built.processor.process(&file(b"four"), &mut ProcessContext::eval()).unwrap().to_vec().unwrap()
        };
        assert_eq!((length(), processor.0.load(Ordering::Relaxed)), (vec![4], 1));
        drop(kept);
        assert_eq!((length(), processor.0.load(Ordering::Relaxed)), (vec![4], 2));
    }

    #[test]
    fn processors_of_one_fingerprint_are_one() {
        let readers = Readers::default();
        let [one, other] = [0, 1].map(|_| readers.add(Modality::IMAGE, Arc::new(Lengths::default())));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(readers.by_modality()[&Modality::IMAGE].len(), 1);
    }
}
