//! Measures retrieval from the database: 100,000 chunks of 384 dimensions in one tenant's index among ten.
//!
//! ```sh
//! cargo run --release -p enigma-sqlite --example bench_search -- [CHUNKS] [CHUNKS A DOCUMENT]
//! ```
//!
//! Vectors lie in clusters, words are as frequent as Zipf says, and both are the same in every run.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures time and prints it")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use enigma_core::ports::{Corpus, KeywordQuery, VectorQuery};
use enigma_core::retrieval::{
    Chunk, Document, DocumentId, EmbeddedChunk, EmbeddingSpace, Metadata, MetadataFilter, Passage, Staging, cosine,
};
use enigma_core::{ModelId, TenantId, Timestamp, VersionId};
use enigma_sqlite::{Database, Options, SqliteCorpus, SqliteMaintenance};
use serde_json::json;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_millis(1_773_144_000_000);
const DIMENSIONS: usize = 384;
const CLUSTERS: u64 = 2_000;
const VOCABULARY: usize = 60_000;
/// How many others there are, each with a tenth of the chunks.
const OTHERS: usize = 9;
/// Chunks that one call stages.
const BATCH: usize = 128;
const QUESTIONS: u64 = 200;
const LIMIT: u32 = 20;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The same numbers in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Of the normal distribution, nearly.
    #[expect(clippy::cast_possible_truncation, reason = "vectors are of f32")]
    fn normal(&mut self) -> f32 {
        ((0..6).map(|_| self.unit()).sum::<f64>() - 3.0) as f32 * std::f32::consts::SQRT_2
    }
}

/// Where texts and vectors come from.
struct World {
    /// How likely a word is, added up.
    shares: Vec<f64>,
}

impl World {
    fn new() -> Self {
        let mut sum = 0.0;
        let share = |rank: u32| f64::from(rank + 3).powf(-1.05);
        let shares = (0..u32::try_from(VOCABULARY).unwrap_or(u32::MAX)).map(|rank| {
            sum += share(rank);
            sum
        });
        Self { shares: shares.collect() }
    }

    fn word(&self, chance: &mut Chance) -> String {
        let all = self.shares.last().copied().unwrap_or_default();
        let place = chance.unit() * all;
        spelled(self.shares.partition_point(|share| *share < place))
    }

    /// 60 to 200 words.
    fn text(&self, chance: &mut Chance) -> String {
        let count = 60 + chance.below(140);
        (0..count).map(|_| self.word(chance)).collect::<Vec<_>>().join(" ")
    }

    /// Words as people ask: some as frequent as in texts, and some that are not.
    fn question(&self, chance: &mut Chance) -> Vec<String> {
        let mut question: Vec<String> = (0..2 + chance.below(4)).map(|_| self.word(chance)).collect();
        let rare = (0..=chance.below(3)).map(|_| spelled(100 + usize::try_from(chance.below(20_000)).unwrap_or(0)));
        question.extend(rare.collect::<Vec<_>>());
        question.sort();
        question.dedup();
        question
    }

    fn vector(chance: &mut Chance) -> Vec<f32> {
        let mut middle = Chance(chance.below(CLUSTERS) << 32);
        let mut vector: Vec<f32> = (0..DIMENSIONS).map(|_| middle.normal() + 0.8 * chance.normal()).collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        for x in &mut vector {
            *x /= length;
        }
        vector
    }

    /// The chunk of that number, of the tenant of that number.
    fn chunk(&self, tenant: usize, number: usize, ordinal: usize) -> EmbeddedChunk {
        let mut chance = Chance((tenant as u64) << 48 | (number as u64) << 8);
        let vector = Self::vector(&mut chance);
        let ordinal = u32::try_from(ordinal).unwrap_or(u32::MAX);
        let chunk = Chunk { ordinal, start: u64::from(ordinal) * 900, text: self.text(&mut chance) };
        EmbeddedChunk { chunk, vector }
    }
}

/// The word of that rank: the rarer, the longer.
fn spelled(rank: usize) -> String {
    let (mut rest, mut word) = (rank, String::new());
    loop {
        word.push(char::from(b"etaoinsrhldcumfp"[rest % 16]));
        word.push(char::from(b"aeiouy"[rest % 6]));
        rest /= 16;
        if rest == 0 {
            return word;
        }
    }
}

struct Bench {
    world: World,
    database: Database,
    corpus: SqliteCorpus,
    space: EmbeddingSpace,
}

impl Bench {
    async fn ingest(&self, tenant: usize, first: usize, count: usize) -> Outcome<()> {
        let (of, name) = (name(tenant)?, format!("doc-{first:07}"));
        let nth = first / count;
        let metadata = json!({ "shelf": nth % 50, "lang": if nth.is_multiple_of(3) { "de" } else { "en" } });
        let metadata = Metadata::new(metadata.as_object().cloned().unwrap_or_default())?;
        let (source, title) = (Some("bench".to_owned()), Some(format!("Document {first}")));
        let document = Document { id: DocumentId::new(&name)?, source, title, url: None, metadata };
        let version = VersionId::new(Uuid::from_u128((tenant as u128) << 64 | first as u128));
        let staging = Staging { document: &document.id, version, space: &self.space };
        for batch in (0..count).collect::<Vec<_>>().chunks(BATCH) {
            let chunks: Vec<_> =
                batch.iter().map(|ordinal| self.world.chunk(tenant, first + ordinal, *ordinal)).collect();
            self.corpus.stage(&of, staging, &chunks, NOW).await?;
        }
        self.corpus.publish(&of, version, &document, &self.space, u32::try_from(count)?, NOW).await??;
        Ok(())
    }

    async fn fill(&self, tenant: usize, count: usize, of_document: usize) -> Outcome<()> {
        for first in (0..count).step_by(of_document) {
            self.ingest(tenant, first, of_document.min(count - first)).await?;
        }
        Ok(())
    }

    async fn near(&self, vector: &[f32], filter: &MetadataFilter) -> Outcome<Vec<Passage>> {
        let query = VectorQuery { vector, filter, limit: LIMIT };
        Ok(self.corpus.nearest(&name(0)?, query).await?)
    }

    async fn matching(&self, words: &[String], filter: &MetadataFilter) -> Outcome<Vec<Passage>> {
        let query = KeywordQuery { words, filter, limit: LIMIT };
        Ok(self.corpus.matching(&name(0)?, query).await?)
    }

    /// How long each question takes: by vector, by words, and by both at once.
    async fn ask(&self, what: &str, filter: &MetadataFilter) -> Outcome<()> {
        let mut times: [Vec<Duration>; 3] = Default::default();
        let mut work = [Duration::ZERO; 3];
        for number in 0..QUESTIONS {
            let mut chance = Chance(number << 40 | 7);
            let (vector, words) = (World::vector(&mut chance), self.world.question(&mut chance));
            let mut start = (Instant::now(), worked());
            let mut stop = |kind: usize| {
                times[kind].push(start.0.elapsed());
                work[kind] += worked().saturating_sub(start.1);
                start = (Instant::now(), worked());
            };
            self.near(&vector, filter).await?;
            stop(0);
            self.matching(&words, filter).await?;
            stop(1);
            let (near, matching) = tokio::join!(self.near(&vector, filter), self.matching(&words, filter));
            stop(2);
            near?;
            matching?;
        }
        for ((kind, times), work) in ["vector", "keywords", "both at once"].iter().zip(times).zip(work) {
            let work = work.as_secs_f64() * 1e3 / f64::from(u32::try_from(QUESTIONS)?);
            println!("{:<38} {}   work {work:5.1} ms", format!("{kind}{what}"), shown(times));
        }
        Ok(())
    }

    /// Of the true nearest chunks, the share that is found.
    async fn recall(&self, chunks: usize, of_document: usize) -> Outcome<f64> {
        let asked: Vec<_> = (0..20u64).map(|number| World::vector(&mut Chance(number << 40 | 7))).collect();
        let mut scores = vec![Vec::with_capacity(chunks); asked.len()];
        for number in 0..chunks {
            let vector = World::vector(&mut Chance((number as u64) << 8));
            for (asked, scores) in asked.iter().zip(&mut scores) {
                scores.push(cosine(asked, &vector));
            }
        }
        let (mut found, mut all) = (0u32, 0u32);
        for (asked, scores) in asked.iter().zip(&mut scores) {
            let mut sorted = scores.clone();
            sorted.sort_by(|one, other| other.total_cmp(one));
            let least = sorted[LIMIT as usize - 1];
            for passage in self.near(asked, &MetadataFilter::default()).await? {
                let first: usize = passage.document.id.as_str().trim_start_matches("doc-").parse()?;
                let score = scores[first / of_document * of_document + passage.chunk.ordinal as usize];
                assert!((score - passage.score).abs() < 1e-12, "a score is the cosine");
                found += u32::from(score >= least);
            }
            all += LIMIT;
        }
        Ok(f64::from(found) / f64::from(all))
    }
}

fn name(tenant: usize) -> Outcome<TenantId> {
    Ok(TenantId::new(&format!("tenant-{tenant}"))?)
}

fn shown(mut times: Vec<Duration>) -> String {
    times.sort();
    let part = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("p50 {:6.1} ms   p95 {:6.1} ms   most {:6.1} ms", part(50), part(95), part(100))
}

/// What the process has had of the cores.
fn worked() -> Duration {
    let status = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = status.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // A hundred a second, wherever Linux runs.
    Duration::from_millis(ticks * 10)
}

/// What the process has of memory: now, and at most so far.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024
    };
    format!("{} MiB now, {} MiB at most", of("VmRSS:"), of("VmHWM:"))
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len()) >> 20
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let chunks = arguments.next().transpose()?.unwrap_or(100_000);
    let of_document = arguments.next().transpose()?.unwrap_or(25);
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("bench.db");
    let database = Database::open(&path, &Options::default())?;
    let space = EmbeddingSpace { model: ModelId::new("bench")?, dimensions: u32::try_from(DIMENSIONS)? };
    let bench = Arc::new(Bench { world: World::new(), corpus: SqliteCorpus::new(database.clone()), database, space });
    println!("{chunks} chunks in documents of {of_document}, and {OTHERS} other tenants with a tenth of that each");

    // While documents come, somebody else writes as well.
    let is_done = Arc::new(AtomicBool::new(false));
    let (other, over) = (bench.database.clone(), Arc::clone(&is_done));
    #[expect(clippy::disallowed_methods, reason = "it is waited for below")]
    let others = tokio::spawn(async move {
        let mut waits = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let start = Instant::now();
            other.flush().await?;
            waits.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Outcome::Ok(waits)
    });
    for tenant in 1..=OTHERS {
        bench.fill(tenant, chunks / 10, of_document).await?;
    }
    let start = Instant::now();
    bench.fill(0, chunks, of_document).await?;
    println!(
        "ingest        {:.0} chunks/s, making them up included",
        f64::from(u32::try_from(chunks)?) / start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    for number in 0..3 {
        bench.ingest(1, 1_000_000 + number * 10_000, 2_500).await?;
    }
    let long = start.elapsed().as_secs_f64() / 3.0;
    let start = Instant::now();
    bench.corpus.delete(&name(1)?, &DocumentId::new("doc-1000000")?).await?;
    println!("2,500 chunks  {long:.2} s to ingest, {:.2} s to delete", start.elapsed().as_secs_f64());
    is_done.store(true, Ordering::Relaxed);
    println!("{:<38} {}", "another write meanwhile", shown(others.await??));
    println!("memory        {}", memory());
    println!("file          {} MiB, log {} MiB", size(&path), size(&directory.path().join("bench.db-wal")));

    let any = MetadataFilter::default();
    bench.ask("", &any).await?;
    let shelf = MetadataFilter::from_json(&json!({ "shelf": 0, "lang": "en" }))?;
    bench.ask(", a filter leaves 1 in 75", &shelf).await?;
    let most = MetadataFilter::from_json(&json!({ "lang": { "$ne": "de" } }))?;
    bench.ask(", a filter leaves 2 in 3", &most).await?;
    println!("memory        {}", memory());
    let start = Instant::now();
    SqliteMaintenance::new(bench.database.clone(), 30).compact().await?;
    println!("compaction    {:.1} s, file {} MiB", start.elapsed().as_secs_f64(), size(&path));
    bench.ask(" after it", &any).await?;
    println!("recall@{LIMIT}     {:.4} over {chunks} chunks", bench.recall(chunks, of_document).await?);
    let Bench { world, database, space, .. } = Arc::into_inner(bench).ok_or("somebody still has it")?;
    database.close().await;
    drop(database);

    // As it is for a tenant whose vectors find no room in memory.
    let database = Database::open(&path, &Options { vector_bytes: 0, ..Options::default() })?;
    let bench = Bench { world, corpus: SqliteCorpus::new(database.clone()), database, space };
    bench.ask(", none at hand", &any).await?;
    println!("memory        {}", memory());
    bench.database.close().await;
    Ok(())
}
