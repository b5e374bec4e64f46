//! Measurements of a store of mm-index: `index ROWS WIDTH [f16|i8] [DIR]` writes clustered vectors of unit length with
//! a field and a text, optimizes, and prints times, sizes, recall and latencies as a table. With DIR the store stays
//! there, next to `vectors.npy`, `queries.npy` and `settings.json` for other libraries (benches/index.py). `index query DIR THREADS
//! CANDIDATES` answers the queries of such a folder, and prints queries a second and the rows found as JSON.

use mm_core::seed::Rng;
use mm_index::{
    Filter, OptimizeOptions, Quantization, Query, Row, SearchSettings, SqliteStore, Store, StoreConfig, VectorConfig,
};
use std::{
    collections::HashSet,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Instant,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CENTERS: usize = 1000;
const BATCH: usize = 5000;
const QUERIES: usize = 200;
/// Queries of each thread.
const EACH: usize = 1000;
const WORDS: [&str; 8] = ["red", "bird", "night", "car", "old", "tree", "sea", "street"];

/// Vectors around common centers: half of the length of each is noise, as of encoded photographs of some thousand kinds
/// of things.
struct Vectors {
    centers: Vec<Vec<f32>>,
    random: Rng,
}

impl Vectors {
    fn new(dim: usize, seed: u64) -> Self {
        let mut random = Rng::new(&[1]);
        let centers = (0..CENTERS).map(|_| normal(&mut random, dim)).collect();
        Self { centers, random: Rng::new(&[seed]) }
    }

    fn next(&mut self) -> Vec<f32> {
        self.next_of_kind().1
    }

    /// A vector and the number of its center.
    fn next_of_kind(&mut self) -> (usize, Vec<f32>) {
        let index = (self.random.uniform_range(0.0, CENTERS as f64) as usize).min(CENTERS - 1);
        let noise = normal(&mut self.random, self.centers[index].len());
        (index, self.centers[index].iter().zip(noise).map(|(center, noise)| center + noise).collect())
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
    if let Some(folder) = arguments.get(3).map(PathBuf::from) {
        std::fs::create_dir_all(&folder)?;
        save(&folder.join("vectors.npy"), rows, dim, 2)?;
        save(&folder.join("queries.npy"), EACH, dim, 10)?;
        let settings = SearchSettings::default();
        let settings = serde_json::json!({
            "links": settings.links(rows), "expansion_add": settings.expansion_add, "candidates": settings.candidates(rows)
        });
        std::fs::write(folder.join("settings.json"), settings.to_string())?;
        return measure(&folder.join("store"), rows, dim, quantization);
    }
    let folder = std::env::temp_dir().join(format!("mm-bench-index-{}", std::process::id()));
    let result = measure(&folder, rows, dim, quantization);
    std::fs::remove_dir_all(&folder)?;
    result
}

/// Writes vectors that [`Vectors`] gives for a seed as `[rows, dim]` float32.
fn save(path: &Path, rows: usize, dim: usize, seed: u64) -> Outcome<()> {
    let (mut file, mut vectors) = (BufWriter::new(File::create(path)?), Vectors::new(dim, seed));
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

fn measure(folder: &Path, rows: usize, dim: usize, quantization: Quantization) -> Outcome<()> {
    let line = |name: &str, value: String| println!("{name:44} {value}");
    line("rows, width, graph", format!("{rows} x {dim}, {quantization:?}"));
    let config = VectorConfig { quantization, ..VectorConfig::cosine(dim) };
    let store = SqliteStore::create(folder, &StoreConfig::new("v", config))?;
    line("upsert, rows a second", format!("{:.0}", rows as f64 / fill(&store, rows, dim)?));
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
    let exact = SqliteStore::open(folder)?.with_settings(SearchSettings { exact_below: usize::MAX, ..graph });
    let store = store.with_settings(graph);
    // Rows of any vectors, and those around a tenth of the centers, from which most queries are far.
    let filters = ["part < 0.001", "part < 0.01", "part < 0.1", "part < 0.5", "kind < 100"];
    for filter in std::iter::once(None).chain(filters.into_iter().map(Some)) {
        let filter = filter.map(|text| (text, Filter::parse(text)));
        let name = filter.as_ref().map_or("no filter", |(text, _)| text);
        let filter = filter.as_ref().map(|(_, filter)| filter.clone()).transpose()?;
        let figures = search(&store, &exact, dim, filter.as_ref())?;
        line(&format!("{name}: recall@10, ms (first, median, p99), method"), figures);
    }
    line("queries a second, all threads", format!("{:.0}", throughput(&store, dim)?));
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
fn fill(store: &SqliteStore, rows: usize, dim: usize) -> Outcome<f64> {
    let mut vectors = Vectors::new(dim, 2);
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

fn search(store: &SqliteStore, exact: &SqliteStore, dim: usize, filter: Option<&Filter>) -> Outcome<String> {
    let (mut vectors, mut times, mut found, mut wanted, mut method) = (Vectors::new(dim, 3), Vec::new(), 0, 0, None);
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
fn throughput(store: &SqliteStore, dim: usize) -> Outcome<f64> {
    let threads = std::thread::available_parallelism()?.get();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let run = |seed: usize| {
            let mut vectors = Vectors::new(dim, 10 + seed as u64);
            let queries: Vec<_> = (0..EACH).map(|_| Query::nearest("v", vectors.next())).collect();
            queries.iter().try_for_each(|query| store.query(query).map(drop))
        };
        let threads: Vec<_> = (0..threads).map(|seed| scope.spawn(move || run(seed))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    Ok((EACH * threads) as f64 / started.elapsed().as_secs_f64())
}
