//! What is particular to PostgreSQL: servers and databases that cannot be used, crashes, damage, graphs of pgvector, and
//! the same results as the embedded engine's.
#![allow(missing_docs)]
#![cfg(feature = "postgres")]

mod engines;

use engines::{Encrypted, Engine, Folder, Schema, Server};
use mm_index::{
    Distance, Filter, Method, OptimizeOptions, PostgresStore, Quantization, Query, Row, SearchSettings, Store,
    StoreConfig, VectorConfig,
};
use postgres::Client;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{collections::HashSet, net::TcpListener, path::Path, sync::atomic::AtomicBool, time::Instant};

const DIM: usize = 16;

fn config() -> StoreConfig {
    StoreConfig::new("v", VectorConfig::cosine(DIM))
}

/// Vectors around twenty centers, as those of a real encoder lie.
fn vectors(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut centers = StdRng::seed_from_u64(1);
    let centers: Vec<Vec<f32>> = (0..20).map(|_| (0..DIM).map(|_| centers.random_range(-1.0..1.0)).collect()).collect();
    let mut random = StdRng::seed_from_u64(seed);
    let mut vector = || {
        let center = &centers[random.random_range(0..centers.len())];
        center.iter().map(|c| c + random.random_range(-0.4..0.4)).collect()
    };
    (0..count).map(|_| vector()).collect()
}

fn rows(count: usize) -> Vec<Row> {
    let row = |(n, values): (usize, Vec<f32>)| {
        Row::new(format!("{n}"))
            .with_vector("v", values)
            .with_field("tenth", n % 10)
            .with_field("half", n % 2)
            .with_text(format!("word{} common", n % 7))
    };
    vectors(count, 2).into_iter().enumerate().map(row).collect()
}

fn filled(schema: &Schema, count: usize) -> Box<dyn Store> {
    let store = schema.create(&config());
    store.upsert(&rows(count)).unwrap();
    store
}

/// The messages of an error and its sources, which never tell the password.
fn message<T>(result: Result<T, mm_index::Error>) -> String {
    let error = result.err().expect("an error");
    let (mut text, mut source) = (error.to_string(), std::error::Error::source(&error));
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    assert!(!text.contains("cret"), "{text}");
    text
}

fn problems(store: &dyn Store) -> Vec<String> {
    let report = store.check(&mut |_, _, _| {}).unwrap();
    report.problems.into_iter().map(|problem| format!("{}: {}", problem.what, problem.reason)).collect()
}

#[test]
fn servers_that_are_away_or_silent_are_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = format!("postgres://mm:secret@127.0.0.1:{port}/mm");
    let found = message(PostgresStore::open(&away));
    assert!(found.contains("cannot be reached") && found.contains("refused"), "{found}");
    // It accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("postgres://mm:secret@{}/mm?connect_timeout=1", silent.local_addr().unwrap());
    let started = Instant::now();
    let found = message(PostgresStore::open(&address));
    assert!(found.contains("did not answer within 1 s"), "{found}");
    assert!(started.elapsed().as_secs() < 5);
    assert!(message(mm_index::exists(Path::new(&address))).contains("did not answer within 1 s"));
}

#[test]
fn connections_are_encrypted_and_verified_as_the_address_says() {
    let Some(server) = Server::start_own() else { return };
    drop(PostgresStore::create(server.base(), &config()).unwrap());
    let encrypted = Encrypted::start(server.socket());
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (folder.path().join("ours.pem"), folder.path().join("other.pem"));
    std::fs::write(&ours, &encrypted.authority).unwrap();
    std::fs::write(&other, Encrypted::start(server.socket()).authority).unwrap();
    let (ours, other) = (ours.display(), other.display());
    let at = |host: &str, parameters: &str| {
        let address =
            server.base().replace(&server.socket().to_string(), &format!("{host}:{}", encrypted.address.port()));
        format!("{address}?{parameters}")
    };
    for (address, is_encrypted) in [
        (at("127.0.0.1", ""), true),
        (at("127.0.0.1", "sslmode=disable"), false),
        (at("127.0.0.1", "sslmode=require"), true),
        (at("127.0.0.1", &format!("sslmode=require&sslrootcert={ours}")), true),
        (at("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ours}")), true),
        (at("localhost", &format!("sslmode=verify-full&sslrootcert={ours}")), true),
    ] {
        let store = PostgresStore::open(&address).unwrap();
        store.upsert(&rows(3)).unwrap();
        assert_eq!(store.stats().unwrap().rows, 3);
        let [plain, with_tls] = encrypted.count();
        assert!(if is_encrypted { plain == 0 && with_tls > 0 } else { plain > 0 && with_tls == 0 }, "{address}");
    }
    for (address, expected) in [
        // The certificate is not that of an address.
        (at("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={ours}")), "not valid for name"),
        (at("localhost", &format!("sslmode=verify-full&sslrootcert={other}")), "certificate"),
        (at("localhost", &format!("sslmode=verify-ca&sslrootcert={other}")), "certificate"),
        (at("localhost", "sslmode=verify-full&sslrootcert=/none.pem"), "sslrootcert: /none.pem"),
    ] {
        let found = message(PostgresStore::open(&address));
        assert!(found.contains(expected), "{address}: {found}");
        assert_eq!(encrypted.count()[0], 0, "{address}: never without encryption");
    }
    let found = message(PostgresStore::open(&format!("{}?sslmode=require", server.base())));
    assert!(found.contains("not encrypted as the address asks"), "{found}");
    // Without a wish, a server that has no encryption is used without it.
    PostgresStore::open(server.base()).unwrap();
}

#[test]
fn databases_that_cannot_be_used_are_refused() {
    let Some(server) = Server::start_own() else { return };
    let base = server.base();
    let wrong = base.replace("se%20cret%401", "wrong");
    assert!(message(PostgresStore::open(&wrong)).contains("refuses the user `mm`; check the name and the password"));
    let other = format!("{}/none", base.rsplit_once('/').unwrap().0);
    assert!(message(PostgresStore::open(&other)).contains("found no database `none`"));
    // A user that may make schemas but not the extension.
    let mut client = server.client();
    for sql in [
        "CREATE ROLE guest LOGIN PASSWORD 'secret'",
        "CREATE DATABASE plain",
        "CREATE DATABASE old ENCODING 'LATIN1' TEMPLATE template0",
    ] {
        client.batch_execute(sql).unwrap();
    }
    let plain = format!("{}/plain", base.rsplit_once('/').unwrap().0);
    let guest = plain.replace("mm:se%20cret%401", "guest:secret");
    let found = message(PostgresStore::create(&guest, &config()));
    assert!(found.contains("found no extension pgvector in this database"), "{found}");
    assert!(message(PostgresStore::open(&plain)).contains("found no extension pgvector in this database"));
    let found = message(PostgresStore::create(&plain.replace("/plain", "/old"), &config()));
    assert!(found.contains("found a database in LATIN1, expected UTF8"), "{found}");
    // With the extension it may not make a schema.
    drop(PostgresStore::create(&plain, &config()).unwrap());
    let found = message(PostgresStore::create(&format!("{guest}?schema=other"), &config()));
    assert!(found.contains("the user `guest` may not do this"), "{found}");
    let found = message(PostgresStore::open(&guest));
    assert!(found.contains("the user `guest` may not do this"), "{found}");
}

#[test]
fn schemas_that_are_no_stores_are_refused() {
    let Some(server) = Server::start() else { return };
    let schema = server.schema();
    let (address, mut client) = (schema.address(), server.client());
    let name = &schema.name;
    assert!(!PostgresStore::exists(&address).unwrap());
    let mut run = |sql: &str| client.batch_execute(sql).unwrap();
    run("CREATE EXTENSION IF NOT EXISTS vector");
    assert!(message(PostgresStore::open(&address)).contains(&format!("the schema `{name}` holds no store")));
    run(&format!("CREATE SCHEMA {name}; CREATE TABLE {name}.birds (a int)"));
    for found in [message(PostgresStore::open(&address)), message(PostgresStore::create(&address, &config()))] {
        assert!(found.contains("holds tables of another program"), "{found}");
    }
    // A table that only has the name of one of a store.
    run(&format!("CREATE TABLE {name}.mm_store (a int)"));
    assert!(message(PostgresStore::open(&address)).contains("holds tables of another program"));
    run(&format!("DROP TABLE {name}.birds; DROP TABLE {name}.mm_store"));
    // An empty schema that the user was given is taken.
    drop(PostgresStore::create(&address, &config()).unwrap());
    assert!(PostgresStore::exists(&address).unwrap());
    assert!(message(PostgresStore::create(&address, &config())).contains("holds a store already"));
    run(&format!("UPDATE {name}.mm_store SET version = 7"));
    assert!(message(PostgresStore::open(&address)).contains("a store of version 7, this program reads version 1"));
}

#[test]
fn what_postgresql_cannot_hold_is_refused() {
    let Some(server) = Server::start() else { return };
    let schema = server.schema();
    let config = |vector: VectorConfig| StoreConfig::new("v", vector);
    let small = VectorConfig { quantization: Quantization::I8, ..VectorConfig::cosine(4) };
    assert!(message(PostgresStore::create(&schema.address(), &config(small))).contains("found i8, expected f16"));
    let wide = message(PostgresStore::create(&schema.address(), &config(VectorConfig::cosine(16_001))));
    assert!(wide.contains("found 16001, expected a width of 1 to 16000 in PostgreSQL"), "{wide}");
    assert!(!PostgresStore::exists(&schema.address()).unwrap());
    let store = schema.create(&config(VectorConfig::cosine(4)));
    for (row, expected) in [
        (Row::new("a").with_text("b\0c"), "text of row `a`: found a NUL character"),
        (Row::new("a").with_field("f", "b\0c"), "field `f` of row `a`: found a NUL character"),
        (Row::new("a").with_field("f\0", 1), "name of a field of row `a`: found a NUL character"),
        (Row::new("a".repeat(2001)), "found 2001 bytes, expected at most 2000 bytes"),
    ] {
        let found = message(store.upsert(&[Row::new("first"), row]));
        assert!(found.contains(expected), "{found}");
    }
    assert_eq!(store.stats().unwrap().rows, 0);
    // Longer than an index of PostgreSQL takes, in places where that does not matter.
    let long = "x".repeat(20_000);
    store.upsert(&[Row::new("long").with_text(format!("a {long}")).with_field("f", long.clone())]).unwrap();
    assert_eq!(store.query(&Query::text(long.clone())).unwrap().hits[0].id, "long");
    assert_eq!(store.select(&Filter::parse(&format!("f = '{long}'")).unwrap(), 9).unwrap(), ["long"]);
    assert_eq!(problems(store.as_ref()), Vec::<String>::new());
}

#[test]
fn a_slow_statement_is_given_up() {
    let Some(server) = Server::start() else { return };
    let schema = server.schema();
    drop(filled(&schema, 10));
    let store = PostgresStore::open(&format!("{}&timeout=1", schema.address())).unwrap();
    // Another program locks the table.
    let mut client = schema.client();
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE mm_vector_data_1").unwrap();
    let found = message(store.query(&Query::nearest("v", vectors(1, 3).remove(0))));
    assert!(found.contains("searching: took the server longer than 1 s"), "{found}");
    transaction.rollback().unwrap();
    assert_eq!(store.query(&Query::nearest("v", vectors(1, 3).remove(0))).unwrap().hits.len(), 10);
}

#[test]
fn acknowledged_rows_survive_a_crash_of_the_server() {
    let Some(mut server) = Server::start_own() else { return };
    let schema = server.schema();
    let store = filled(&schema, 100);
    store.delete(&["7", "8"]).unwrap();
    server.crash();
    // The same value connects again.
    assert_eq!(store.stats().unwrap().rows, 98);
    assert_eq!(store.get(&["6", "7"]).unwrap().iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    store.upsert(&rows(8)).unwrap();
    assert_eq!(store.stats().unwrap().rows, 99);
    assert_eq!(problems(store.as_ref()), Vec::<String>::new());
}

#[test]
fn damage_is_found_and_never_returned() {
    let Some(server) = Server::start() else { return };
    let schema = server.schema();
    let store = filled(&schema, 60);
    let mut client = schema.client();
    let number = |client: &mut Client, id: &str| -> i64 {
        client.query_one("SELECT number FROM mm_rows WHERE id = $1", &[&id]).unwrap().get(0)
    };
    let [text, payload, vector, part, field, words] = ["1", "2", "3", "4", "5", "6"].map(|id| number(&mut client, id));
    let mut damage = |sql: &str, number: i64| assert_eq!(client.execute(sql, &[&number]).unwrap(), 1);
    damage("UPDATE mm_rows SET text = 'other' WHERE number = $1", text);
    damage("UPDATE mm_rows SET payload = '{\"tenth\": 3, \"half\": 0}' WHERE number = $1", payload);
    damage("UPDATE mm_vector_data_1 SET checksum = checksum + 1 WHERE number = $1", vector);
    damage("DELETE FROM mm_vector_data_1 WHERE number = $1", part);
    damage("DELETE FROM mm_field_values WHERE number = $1 AND number_value = 5", field);
    damage("UPDATE mm_rows SET words = '{other}' WHERE number = $1", words);
    let sql = "UPDATE mm_field_values SET number_value = 2001 WHERE field = 2 AND number = $1";
    damage(sql, number(&mut schema.client(), "7"));
    damage("INSERT INTO mm_field_values (number, field, number_value) VALUES ($1, 2, 77)", 100_000);
    for id in ["1", "2", "3"] {
        assert!(message(store.get(&[id])).contains("found damaged data"), "{id}");
    }
    let filter = Filter::parse("tenth = 2001").unwrap();
    let query = Query::nearest("v", vectors(1, 3).remove(0)).filter(filter.clone());
    for found in [message(store.select(&filter, 9)), message(store.query(&query))] {
        assert!(found.contains("found the row `7`, whose fields do not meet it; `mm index check` lists"), "{found}");
    }
    let found = problems(store.as_ref()).join("\n");
    for expected in [
        "row 1: its checksum is wrong".to_owned(),
        "row 2: its checksum is wrong".to_owned(),
        "vector `v` of row 3: its checksum is wrong".to_owned(),
        "vector `v`: found 59 rows, expected 60".to_owned(),
        "row 5: filters do not see its fields as they are".to_owned(),
        "row 6: searches do not see its words as they are".to_owned(),
        "row 7: filters do not see its fields as they are".to_owned(),
        "values of fields: 1 are of rows that are not there".to_owned(),
    ] {
        assert!(found.contains(&expected), "{expected} is not among\n{found}");
    }
}

fn optimize(store: &dyn Store, rebuild: bool) -> Vec<(usize, usize)> {
    let options = OptimizeOptions { stop: &AtomicBool::new(false), rebuild };
    let done = store.optimize(&options, &mut |_, _, _| {}).unwrap();
    done.graphs.iter().map(|graph| (graph.rows, graph.kept)).collect()
}

fn ids(store: &dyn Store, query: &Query) -> HashSet<String> {
    store.query(query).unwrap().hits.into_iter().map(|hit| hit.id).collect()
}

/// The fraction of the ten nearest rows that a graph finds, over thirty queries.
fn recall(schema: &Schema, graph: &dyn Store, filter: Option<&str>) -> f64 {
    let exact = schema.open(SearchSettings::default());
    let mut found = 0;
    for values in vectors(30, 3) {
        let mut query = Query::nearest("v", values);
        query.filter = filter.map(|text| Filter::parse(text).unwrap());
        let (ours, truth) = (graph.query(&query).unwrap(), exact.query(&query).unwrap());
        assert_eq!((ours.steps[0].method, truth.steps[0].method), (Method::Graph, Method::Exact), "{filter:?}");
        assert_eq!(ours.hits.len(), 10);
        for hit in &ours.hits {
            let same = truth.hits.iter().find(|other| other.id == hit.id);
            assert!(same.is_none_or(|other| other.score == hit.score), "{hit:?} {same:?}");
            found += usize::from(same.is_some());
        }
    }
    found as f64 / 300.0
}

#[test]
fn graphs_find_the_nearest_rows_with_filters_deletions_and_fresh_rows() {
    let Some(server) = Server::start() else { return };
    let schema = server.schema();
    drop(filled(&schema, 1600));
    let settings = SearchSettings { exact_below: 500, exact_filter_rows: 100, ..SearchSettings::default() };
    let store = schema.open(settings);
    let store = store.as_ref();
    let answer = store.query(&Query::nearest("v", vectors(1, 4).remove(0))).unwrap();
    assert!(answer.steps[0].note.as_ref().unwrap().contains("`mm index optimize` builds one"), "{answer:?}");
    assert_eq!(optimize(store, false), [(1600, 0)]);
    assert_eq!(optimize(store, false), [], "nothing is left to do");
    for filter in [None, Some("half = 1"), Some("tenth = 3"), Some("not tenth in (1, 2) and half = 0")] {
        let recall = recall(&schema, store, filter);
        assert!(recall > 0.98, "{filter:?}: {recall}");
    }
    // A narrow filter is searched exactly.
    store.upsert(&[Row::new("rare").with_vector("v", vectors(1, 9).remove(0)).with_field("tenth", 77)]).unwrap();
    let narrow = Query::nearest("v", vectors(1, 5).remove(0)).filter(Filter::parse("tenth = 77").unwrap());
    let step = store.query(&narrow).unwrap().steps.remove(0);
    assert_eq!((step.method, step.filtered, step.scored), (Method::Exact, Some(1), 1));
    // Deleted and replaced rows are not found, fresh ones are.
    let deleted: Vec<String> = (0..300).map(|n| format!("{}", n * 2)).collect();
    store.delete(&deleted.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let fresh = vectors(100, 4).into_iter().enumerate();
    store
        .upsert(&fresh.map(|(n, v)| Row::new(format!("{}", n * 2 + 1)).with_vector("v", v)).collect::<Vec<_>>())
        .unwrap();
    assert!(recall(&schema, store, None) > 0.98);
    let found = ids(store, &Query::nearest("v", vectors(1, 3).remove(0)).k(100));
    assert!(found.len() == 100 && deleted.iter().all(|id| !found.contains(id)));
    assert_eq!(optimize(store, true), [(1301, 0)]);
    assert!(recall(&schema, store, None) > 0.98);
    assert_eq!(
        schema
            .client()
            .query("SELECT 1 FROM pg_indexes WHERE indexdef LIKE '%hnsw%' AND schemaname = $1", &[&schema.name])
            .unwrap()
            .len(),
        1
    );
    let graph = store.stats().unwrap().vectors.remove(0).graph.unwrap();
    assert!(graph.bytes > 0 && graph.fresh == 0, "{graph:?}");
    assert_eq!(problems(store), Vec::<String>::new());
}

#[test]
fn a_stopped_optimization_leaves_the_store_as_it_was() {
    let Some(server) = Server::start() else { return };
    let schema = server.schema();
    drop(filled(&schema, 600));
    let settings = SearchSettings { exact_below: 500, ..SearchSettings::default() };
    let store = schema.open(settings);
    let options = OptimizeOptions { stop: &AtomicBool::new(true), rebuild: false };
    let error = store.optimize(&options, &mut |_, _, _| {}).unwrap_err();
    assert!(matches!(error, mm_index::Error::Stopped { done: 0, total: 600 }), "{error}");
    // What a killed process leaves is an unfinished graph: searches do not use it, and it is built again.
    optimize(store.as_ref(), false);
    let sql = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mm_vector_data_1_graph_1'::regclass";
    schema.client().batch_execute(sql).unwrap();
    assert_eq!(store.stats().unwrap().vectors[0].graph, None);
    assert_eq!(store.query(&Query::nearest("v", vectors(1, 5).remove(0))).unwrap().steps[0].method, Method::Exact);
    assert!(problems(store.as_ref())[0].contains("is unfinished"));
    assert_eq!(optimize(store.as_ref(), false), [(600, 0)]);
    assert_eq!(problems(store.as_ref()), Vec::<String>::new());
}

/// The request to stop is a connection of its own, which is encrypted as the address asks.
#[test]
fn an_optimization_through_an_encrypted_connection_is_stopped() {
    let Some(server) = Server::start_own() else { return };
    drop(PostgresStore::create(server.base(), &config()).unwrap());
    let encrypted = Encrypted::start(server.socket());
    let address = server.base().replace(&server.socket().to_string(), &encrypted.address.to_string());
    let settings = SearchSettings { exact_below: 10, ..SearchSettings::default() };
    let store = PostgresStore::open(&format!("{address}?sslmode=require")).unwrap().with_settings(settings);
    store.upsert(&rows(100)).unwrap();
    // The graph is not begun before this lock is released.
    let mut client = server.client();
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE mm.mm_vector_data_1 IN SHARE UPDATE EXCLUSIVE MODE").unwrap();
    let (stop, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let options = OptimizeOptions { stop: &stop, rebuild: false };
            let on_progress = &mut |_: &str, _, _| stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let error = store.optimize(&options, on_progress).unwrap_err();
            assert!(matches!(error, mm_index::Error::Stopped { total: 100, .. }), "{error}");
            stopped.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let started = Instant::now();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) && started.elapsed().as_secs() < 20 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        transaction.rollback().unwrap();
    });
    assert_eq!(encrypted.count()[0], 0, "never without encryption");
}

#[test]
fn many_threads_search_while_two_write_and_one_optimizes() {
    let Some(server) = Server::start() else { return };
    let schema = server.schema();
    drop(filled(&schema, 600));
    let settings = SearchSettings { exact_below: 500, exact_filter_rows: 100, ..SearchSettings::default() };
    let store = schema.open(settings);
    let others = [schema.open(settings), schema.open(settings)];
    optimize(store.as_ref(), false);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let store = &store;
            scope.spawn(move || {
                let filter = Filter::parse("half = 1").unwrap();
                for query in vectors(20, 100 + seed) {
                    let hits = store.query(&Query::nearest("v", query.clone()).filter(filter.clone())).unwrap().hits;
                    assert_eq!(hits.len(), 10);
                    assert_eq!(store.query(&Query::text("common").k(5)).unwrap().hits.len(), 5);
                }
            });
        }
        for (writer, store) in others.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..8 {
                    let fresh = vectors(20, 50 + round).into_iter().enumerate();
                    let rows = fresh.map(|(n, v)| Row::new(format!("{writer} {round} {n}")).with_vector("v", v));
                    store.upsert(&rows.collect::<Vec<_>>()).unwrap();
                    assert_eq!(store.delete(&[&format!("{writer} {round} 0")]).unwrap(), 1);
                }
            });
        }
        optimize(store.as_ref(), true);
    });
    assert_eq!(store.stats().unwrap().rows, 600 + 2 * 8 * 19);
    assert_eq!(problems(store.as_ref()), Vec::<String>::new());
}

/// Random texts with signs, accents, capital letters and repeated words.
fn texts(count: usize) -> Vec<String> {
    const PIECES: [&str; 14] = [
        "red", "Bird", "e-mail", "café", "CAFE", "don't", "night,", "red bird", "(car)", "x_y", "3.14", "日本",
        "tree;", "é",
    ];
    let mut random = StdRng::seed_from_u64(11);
    let mut text = || {
        let words = random.random_range(0..30);
        (0..words).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect::<Vec<_>>().join(" ")
    };
    (0..count).map(|_| text()).collect()
}

#[test]
fn both_engines_give_the_same_results() {
    let Some(server) = Server::start() else { return };
    let (schema, folder) = (server.schema(), Folder::new());
    let dot = VectorConfig { distance: Distance::Dot, ..VectorConfig::cosine(DIM) };
    let far = VectorConfig { distance: Distance::Euclidean, ..VectorConfig::cosine(DIM) };
    let many = VectorConfig { multi: true, ..VectorConfig::cosine(DIM) };
    let config = config().with("dot", dot).with("far", far).with("many", many);
    let (server_store, embedded) = (schema.create(&config), folder.create(&config));
    let rows: Vec<Row> = rows(400)
        .into_iter()
        .zip(texts(400))
        .map(|(row, text)| {
            let values: Vec<f32> = row.vectors["v"].iter().next().unwrap().to_vec();
            let several: Vec<Vec<f32>> =
                (1..4u8).map(|n| values.iter().map(|v| v.sin() * f32::from(n) + 0.1).collect()).collect();
            row.with_text(text)
                .with_vector("dot", values.clone())
                .with_vector("far", values)
                .with_vector("many", several)
        })
        .collect();
    for batch in rows.chunks(90) {
        server_store.upsert(batch).unwrap();
        embedded.upsert(batch).unwrap();
    }
    for store in [&server_store, &embedded] {
        store.delete(&["3", "50"]).unwrap();
    }
    let mut queries: Vec<Query> = [
        "red",
        "bird cafe",
        "e-mail",
        "Don't café",
        "red red bird",
        "zebra",
        "zebra tree",
        "日本 3.14",
        "x_y (car) é",
        "½ red",
    ]
    .map(|words| Query::text(words).k(500))
    .into();
    for values in vectors(5, 8) {
        queries.extend(["v", "dot", "far", "many"].map(|name| Query::nearest(name, values.clone()).k(60)));
        queries.push(Query::max_sim("many", vec![values.clone(), vectors(1, 9).remove(0)]).k(20));
        let words = Query::text("red café").k(50);
        queries.push(Query::max_sim_over("many", vec![values.clone()], words.clone()).k(20));
        queries.push(Query::fusion(vec![(1.0, Query::nearest("v", values).k(50)), (0.7, words)]).k(20));
    }
    for filter in [None, Some("half = 1 and tenth > 3"), Some("not tenth in (1, 2, 3)")] {
        for query in &queries {
            let mut query = query.clone();
            query.filter = filter.map(|text| Filter::parse(text).unwrap());
            let (ours, expected) = (server_store.query(&query).unwrap().hits, embedded.query(&query).unwrap().hits);
            let order = |hits: &[mm_index::Hit]| hits.iter().map(|hit| hit.id.clone()).collect::<Vec<_>>();
            assert_eq!(order(&ours), order(&expected), "{query:?}");
            for (hit, other) in ours.iter().zip(&expected) {
                assert!((hit.score - other.score).abs() <= 1e-12 * other.score.abs(), "{query:?}: {hit:?} {other:?}");
                assert_eq!((&hit.payload, &hit.text), (&other.payload, &other.text));
            }
        }
    }
}
