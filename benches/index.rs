//! Measurements of a store of mm-index: `index ROWS WIDTH [f16|i8] [DIR [VECTORS.npy]]` writes clustered vectors of unit length,
//! or those of a file (repeated with noise where they are fewer; the last 1,000 are the queries), with a field and a text, optimizes, and prints times, sizes, recall and latencies as a table. With DIR the store stays
//! there, next to `vectors.npy`, `queries.npy` and `settings.json` for other libraries (benches/index.py). DIR may be the address of
//! a database (`postgres://…?schema=NEW`). `index query DIR THREADS CANDIDATES` answers the queries of such a folder, and prints
//! queries a second and the rows found as JSON.

use mm_core::seed::Rng;
use mm_index::{
    Filter, OptimizeOptions, PostgresStore, Quantization, Query, Row, SearchSettings, SqliteStore, Store, StoreConfig,
    VectorConfig,
};
use std::{
    collections::HashSet,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CENTERS: usize = 1000;
const BATCH: usize = 5000;
const QUERIES: usize = 200;
/// Queries of each thread.
const EACH: usize = 1000;
const WORDS: [&str; 8] = ["red", "bird", "night", "car", "old", "tree", "sea", "street"];

/// What vectors are made of.
#[derive(Clone)]
enum Space {
    /// Common centers: half of the length of each vector is noise, as of encoded photographs of some thousand kinds of things.
    Clusters(Arc<Vec<Vec<f32>>>),
    /// Vectors that a model computed. Where more are wanted they are repeated with noise, half as long as each.
    Encoded(Arc<Vec<Vec<f32>>>),
}

/// Length of the noise that is added to repeated vectors, relative to theirs.
const NOISE: f32 = 0.5;

impl Space {
    fn clusters(dim: usize) -> Self {
        let mut random = Rng::new(&[1]);
        Self::Clusters(Arc::new((0..CENTERS).map(|_| normal(&mut random, dim)).collect()))
    }

    fn read(file: &Path, dim: usize) -> Outcome<Self> {
        let values = mm_data::read_npy(file)?;
        let (rows, width) = (values.size(0)? as usize, values.size(1)? as usize);
        if width != dim || rows <= EACH {
            let expected = format!("more than {EACH} vectors of {dim} values");
            return Err(format!("{}: found {rows} of {width}, expected {expected}", file.display()).into());
        }
        Ok(Self::Encoded(Arc::new(values.to_vec::<f32>()?.chunks(width).map(<[f32]>::to_vec).collect())))
    }

    fn dim(&self) -> usize {
        match self {
            Self::Clusters(vectors) | Self::Encoded(vectors) => vectors[0].len(),
        }
    }
}

/// A sequence of vectors of a space.
struct Vectors {
    space: Space,
    is_query: bool,
    random: Rng,
    count: usize,
}

impl Vectors {
    /// The rows of a store.
    fn rows(space: &Space) -> Self {
        Self { space: space.clone(), is_query: false, random: Rng::new(&[2]), count: 0 }
    }

    /// Queries, others for each seed as far as there are.
    fn queries(space: &Space, seed: u64) -> Self {
        Self { space: space.clone(), is_query: true, random: Rng::new(&[seed]), count: 0 }
    }

    fn next(&mut self) -> Vec<f32> {
        self.next_of_kind().1
    }

    /// A vector and what it is one of: the number of its center, or its part of the file.
    fn next_of_kind(&mut self) -> (usize, Vec<f32>) {
        let number = self.count;
        self.count += 1;
        match &self.space {
            Space::Clusters(centers) => {
                let index = (self.random.uniform_range(0.0, CENTERS as f64) as usize).min(CENTERS - 1);
                let noise = normal(&mut self.random, centers[index].len());
                (index, centers[index].iter().zip(noise).map(|(center, noise)| center + noise).collect())
            }
            Space::Encoded(vectors) => {
                let rows = vectors.len() - EACH;
                let index = if self.is_query { rows + number % EACH } else { number % rows };
                let vector = &vectors[index];
                let kind = index * CENTERS / vectors.len();
                if self.is_query || number < rows {
                    return (kind, vector.clone());
                }
                let length = |v: &[f32]| v.iter().map(|value| value * value).sum::<f32>().sqrt();
                let noise = normal(&mut self.random, vector.len());
                let scale = NOISE * length(vector) / length(&noise);
                (kind, vector.iter().zip(noise).map(|(value, noise)| value + scale * noise).collect())
            }
        }
    }
}

/// About normally distributed values.
fn normal(random: &mut Rng, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| (0..4).map(|_| random.uniform_range(-1.0, 1.0)).sum::<f64>() as f32).collect()
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| arguments.get(index).map_or(Ok(default), |text| text.parse());
    if arguments.first().is_some_and(|command| command == "query") {
        let folder = arguments.get(1).ok_or("found no folder, expected `index query DIR THREADS CANDIDATES`")?;
        return answer(Path::new(folder), number(2, 1)?, number(3, 128)?);
    }
    let (rows, dim) = (number(0, 100_000)?, number(1, 512)?);
    let quantization = match arguments.get(2).map(String::as_str) {
        None | Some("f16") => Quantization::F16,
        Some("i8") => Quantization::I8,
        Some(other) => return Err(format!("found {other}, expected f16 or i8").into()),
    };
    let space = arguments.get(4).map_or_else(|| Ok(Space::clusters(dim)), |file| Space::read(Path::new(file), dim))?;
    if let Some(address) = arguments.get(3).filter(|location| is_database(Path::new(location))) {
        return measure(Path::new(address), rows, &space, quantization);
    }
    if let Some(folder) = arguments.get(3).map(PathBuf::from) {
        std::fs::create_dir_all(&folder)?;
        save(&folder.join("vectors.npy"), rows, Vectors::rows(&space))?;
        save(&folder.join("queries.npy"), EACH, Vectors::queries(&space, 10))?;
        let settings = SearchSettings::default();
        let settings = serde_json::json!({
            "links": settings.links(rows), "expansion_add": settings.expansion_add, "candidates": settings.candidates(rows)
        });
        std::fs::write(folder.join("settings.json"), settings.to_string())?;
        return measure(&folder.join("store"), rows, &space, quantization);
    }
    let folder = std::env::temp_dir().join(format!("mm-bench-index-{}", std::process::id()));
    let result = measure(&folder, rows, &space, quantization);
    std::fs::remove_dir_all(&folder)?;
    result
}

/// Writes vectors as `[rows, dim]` float32.
fn save(path: &Path, rows: usize, mut vectors: Vectors) -> Outcome<()> {
    let (mut file, dim) = (BufWriter::new(File::create(path)?), vectors.space.dim());
    file.write_all(&mm_data::npy_header("<f4", &[rows, dim]))?;
    for _ in 0..rows {
        let bytes: Vec<u8> = vectors.next().iter().flat_map(|value| value.to_le_bytes()).collect();
        file.write_all(&bytes)?;
    }
    Ok(file.flush()?)
}

/// Answers the queries of a folder by the graph of its store.
fn answer(folder: &Path, threads: usize, candidates: usize) -> Outcome<()> {
    let settings = SearchSettings { exact_below: 0, expansion_search: Some(candidates), ..SearchSettings::default() };
    let store = SqliteStore::open(&folder.join("store"))?.with_settings(settings);
    let queries = mm_data::read_npy(&folder.join("queries.npy"))?;
    let dim = queries.size(1)? as usize;
    let queries: Vec<Query> =
        queries.to_vec::<f32>()?.chunks(dim).map(|vector| Query::nearest("v", vector.to_vec())).collect();
    // The first query loads the graph.
    store.query(&queries[0])?;
    let started = Instant::now();
    let found = std::thread::scope(|scope| {
        let store = &store;
        let run = move |part: &[Query]| part.iter().map(|query| store.query(query)).collect::<Result<Vec<_>, _>>();
        let parts: Vec<_> = queries.chunks(queries.len().div_ceil(threads.max(1))).collect();
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || run(part))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))
        };
        threads.into_iter().map(join).collect::<Result<Vec<Vec<_>>, mm_index::Error>>()
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let ids: Vec<Vec<String>> =
        found.into_iter().flatten().map(|result| result.hits.into_iter().map(|hit| hit.id).collect()).collect();
    let peak = std::fs::read_to_string("/proc/self/status")?;
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim().to_owned();
    println!("{}", serde_json::json!({"per_second": queries.len() as f64 / seconds, "ids": ids, "peak": peak}));
    Ok(())
}

fn is_database(location: &Path) -> bool {
    location.to_string_lossy().starts_with("postgres://")
}

fn open(location: &Path, settings: SearchSettings) -> Outcome<Box<dyn Store>> {
    if is_database(location) {
        return Ok(Box::new(PostgresStore::open(&location.to_string_lossy())?.with_settings(settings)));
    }
    Ok(Box::new(SqliteStore::open(location)?.with_settings(settings)))
}

fn measure(location: &Path, rows: usize, space: &Space, quantization: Quantization) -> Outcome<()> {
    let dim = space.dim();
    let line = |name: &str, value: String| println!("{name:44} {value}");
    line("rows, width, graph", format!("{rows} x {dim}, {quantization:?}"));
    let config = VectorConfig { quantization, ..VectorConfig::cosine(dim) };
    let store = mm_index::create(location, &StoreConfig::new("v", config))?;
    line("upsert, rows a second", format!("{:.0}", rows as f64 / fill(store.as_ref(), rows, space)?));
    let started = Instant::now();
    let options = OptimizeOptions { stop: &AtomicBool::new(false), rebuild: true };
    let optimized = store.optimize(&options, &mut |_, _, _| {})?;
    line("optimize, seconds", format!("{:.1}", started.elapsed().as_secs_f64()));
    line(
        "size of the store, graph, MB",
        format!("{} {}", store.stats()?.bytes / 1_000_000, optimized.graphs[0].bytes / 1_000_000),
    );
    // The graph for any number of rows, and never the graph.
    let graph = SearchSettings { exact_below: 0, ..SearchSettings::default() };
    let exact = open(location, SearchSettings { exact_below: usize::MAX, ..graph })?;
    let store = open(location, graph)?;
    // Rows of any vectors, and those around a tenth of the centers, from which most queries are far.
    let filters = ["part < 0.001", "part < 0.01", "part < 0.1", "part < 0.5", "kind < 100"];
    for filter in std::iter::once(None).chain(filters.into_iter().map(Some)) {
        let filter = filter.map(|text| (text, Filter::parse(text)));
        let name = filter.as_ref().map_or("no filter", |(text, _)| text);
        let filter = filter.as_ref().map(|(_, filter)| filter.clone()).transpose()?;
        let figures = search(store.as_ref(), exact.as_ref(), space, filter.as_ref())?;
        line(&format!("{name}: recall@10, ms (first, median, p99), method"), figures);
    }
    line("queries a second, all threads", format!("{:.0}", throughput(store.as_ref(), space)?));
    let mut times = Vec::new();
    for word in WORDS {
        let started = Instant::now();
        store.query(&Query::text(word))?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    line("one word: ms (median)", format!("{:.2}", times[times.len() / 2]));
    Ok(())
}

/// Writes the rows; seconds.
fn fill(store: &dyn Store, rows: usize, space: &Space) -> Outcome<f64> {
    let mut vectors = Vectors::rows(space);
    let mut seconds = 0.0;
    for start in (0..rows).step_by(BATCH) {
        let mut row = |n: usize| {
            let text = format!("{} {}", WORDS[n % WORDS.len()], WORDS[n / 7 % WORDS.len()]);
            // Spread over the rows, and in order of size.
            let part = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / u64::MAX as f64;
            let (kind, vector) = vectors.next_of_kind();
            Row::new(format!("{n}"))
                .with_field("part", part)
                .with_field("kind", kind)
                .with_text(text)
                .with_vector("v", vector)
        };
        let batch: Vec<Row> = (start..(start + BATCH).min(rows)).map(&mut row).collect();
        let started = Instant::now();
        store.upsert(&batch)?;
        seconds += started.elapsed().as_secs_f64();
    }
    Ok(seconds)
}

fn search(store: &dyn Store, exact: &dyn Store, space: &Space, filter: Option<&Filter>) -> Outcome<String> {
    let (mut vectors, mut times, mut found, mut wanted, mut method) =
        (Vectors::queries(space, 3), Vec::new(), 0, 0, None);
    for _ in 0..QUERIES {
        let mut query = Query::nearest("v", vectors.next());
        query.filter = filter.cloned();
        let started = Instant::now();
        let ours = store.query(&query)?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        method = Some(ours.steps[0].method);
        let truth: HashSet<String> = exact.query(&query)?.hits.into_iter().map(|hit| hit.id).collect();
        wanted += truth.len();
        found += ours.hits.iter().filter(|hit| truth.contains(&hit.id)).count();
    }
    // The first query loads the graph, or finds the rows that meet the filter.
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    let at = |fraction: f64| times[((times.len() - 1) as f64 * fraction) as usize];
    let recall = found as f64 / wanted.max(1) as f64;
    Ok(format!("{recall:.4} {first:.2} {:.2} {:.2} {method:?}", at(0.5), at(0.99)))
}

/// Queries a second from as many threads as there are.
fn throughput(store: &dyn Store, space: &Space) -> Outcome<f64> {
    let threads = std::thread::available_parallelism()?.get();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let run = |seed: usize| {
            let mut vectors = Vectors::queries(space, 10 + seed as u64);
            let queries: Vec<_> = (0..EACH).map(|_| Query::nearest("v", vectors.next())).collect();
            queries.iter().try_for_each(|query| store.query(query).map(drop))
        };
        let threads: Vec<_> = (0..threads).map(|seed| scope.spawn(move || run(seed))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    Ok((EACH * threads) as f64 / started.elapsed().as_secs_f64())
}
