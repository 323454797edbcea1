//! The routes of the service.
//!
//! ```text
//! GET    /                              the page
//! GET    /healthz                       ok
//! GET    /api/worlds                    all worlds
//! POST   /api/worlds                    {"rows": [".#.", …]}
//! GET    /api/worlds/ID                 one world
//! POST   /api/worlds/ID/step?by=10      the same world, generations later
//! DELETE /api/worlds/ID                 gone
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::world::{Malformed, World};

/// The most generations that one request may ask for: everybody else waits meanwhile.
const LONGEST_LEAP: u32 = 100;

/// The most worlds at a time; after that the oldest makes room.
const MOST_WORLDS: usize = 100;

/// All worlds, by a number that is never given twice.
#[derive(Clone, Default)]
pub struct Worlds(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    by_id: BTreeMap<u64, World>,
    last_id: u64,
}

impl Worlds {
    /// One world to look at, so that the page is not empty.
    pub fn with_a_glider() -> Self {
        let mut rows = vec![".".repeat(40); 30];
        for (row, cells) in rows.iter_mut().zip([".#.", "..#", "###"]) {
            row.replace_range(..3, cells);
        }
        let worlds = Self::default();
        if let Ok(glider) = World::from_rows(&rows) {
            worlds.lock().add(glider);
        }
        worlds
    }

    /// A handler that panicked has not left a world half stepped, so a poisoned lock is fine.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, world: World) -> u64 {
        self.last_id += 1;
        self.by_id.insert(self.last_id, world);
        if self.by_id.len() > MOST_WORLDS {
            self.by_id.pop_first();
        }
        self.last_id
    }
}

/// A world as it is told to clients.
#[derive(Serialize)]
struct Report {
    id: u64,
    generation: u64,
    population: usize,
    rows: Vec<String>,
}

impl Report {
    fn new(id: u64, world: &World) -> Self {
        Self {
            id,
            generation: world.generation(),
            population: world.population(),
            rows: world.rows(),
        }
    }
}

/// Why a request is refused.
enum Refusal {
    NoSuchWorld,
    Malformed(Malformed),
    TooFar,
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::NoSuchWorld => (StatusCode::NOT_FOUND, "no such world".to_owned()),
            Self::Malformed(malformed) => (StatusCode::BAD_REQUEST, malformed.to_string()),
            Self::TooFar => {
                (StatusCode::BAD_REQUEST, format!("at most {LONGEST_LEAP} generations at a time"))
            }
        };
        (status, Json(BTreeMap::from([("error", error)]))).into_response()
    }
}

#[derive(Deserialize)]
struct NewWorld {
    rows: Vec<String>,
}

#[derive(Deserialize)]
struct Leap {
    #[serde(default = "one")]
    by: u32,
}

fn one() -> u32 {
    1
}

/// The whole service over these worlds.
pub fn router(worlds: Worlds) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/healthz", get(async || "ok\n"))
        .route("/api/worlds", get(list).post(create))
        .route("/api/worlds/{id}", get(show).delete(remove))
        .route("/api/worlds/{id}/step", post(step))
        .with_state(worlds)
}

async fn list(State(worlds): State<Worlds>) -> Json<Vec<Report>> {
    Json(worlds.lock().by_id.iter().map(|(&id, world)| Report::new(id, world)).collect())
}

async fn create(
    State(worlds): State<Worlds>,
    Json(new): Json<NewWorld>,
) -> Result<impl IntoResponse, Refusal> {
    let world = World::from_rows(&new.rows)?;
    let id = worlds.lock().add(world.clone());
    let location = [(header::LOCATION, format!("/api/worlds/{id}"))];
    Ok((StatusCode::CREATED, location, Json(Report::new(id, &world))))
}

async fn show(State(worlds): State<Worlds>, Path(id): Path<u64>) -> Result<Json<Report>, Refusal> {
    let worlds = worlds.lock();
    let world = worlds.by_id.get(&id).ok_or(Refusal::NoSuchWorld)?;
    Ok(Json(Report::new(id, world)))
}

async fn step(
    State(worlds): State<Worlds>,
    Path(id): Path<u64>,
    Query(leap): Query<Leap>,
) -> Result<Json<Report>, Refusal> {
    if leap.by > LONGEST_LEAP {
        return Err(Refusal::TooFar);
    }
    let mut worlds = worlds.lock();
    let world = worlds.by_id.get_mut(&id).ok_or(Refusal::NoSuchWorld)?;
    for _ in 0..leap.by {
        world.step();
    }
    Ok(Json(Report::new(id, world)))
}

async fn remove(State(worlds): State<Worlds>, Path(id): Path<u64>) -> Result<StatusCode, Refusal> {
    worlds.lock().by_id.remove(&id).ok_or(Refusal::NoSuchWorld)?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    /// Sends one request to `app`; returns the status and the body, which is null if it is no
    /// JSON.
    async fn ask(app: &Router, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_world_is_made_stepped_read_and_removed() {
        let app = router(Worlds::default());
        let rows = r#"{"rows": [".....", ".....", ".###.", ".....", "....."]}"#;
        let (status, made) = ask(&app, "POST", "/api/worlds", rows).await;
        assert_eq!((status, &made["id"], &made["population"]), (201, &json!(1), &json!(3)));

        let standing = json!({
            "id": 1,
            "generation": 3,
            "population": 3,
            "rows": [".....", "..#..", "..#..", "..#..", "....."],
        });
        assert_eq!(ask(&app, "POST", "/api/worlds/1/step", "").await.0, 200);
        let stepped = ask(&app, "POST", "/api/worlds/1/step?by=2", "").await;
        assert_eq!(stepped, (200, standing.clone()));
        assert_eq!(ask(&app, "GET", "/api/worlds/1", "").await, (200, standing));

        assert_eq!(ask(&app, "DELETE", "/api/worlds/1", "").await.0, 204);
        assert_eq!(ask(&app, "GET", "/api/worlds", "").await, (200, json!([])));
    }

    #[tokio::test]
    async fn each_mistake_has_its_status() {
        let app = router(Worlds::with_a_glider());
        let cases = [
            ("GET", "/nowhere", "", 404),
            ("GET", "/api/worlds/2", "", 404),
            ("GET", "/api/worlds/two", "", 400),
            ("DELETE", "/api/worlds/2", "", 404),
            ("POST", "/api/worlds/2/step", "", 404),
            ("POST", "/api/worlds/1/step?by=101", "", 400),
            ("POST", "/api/worlds/1/step?by=-1", "", 400),
            ("PUT", "/api/worlds/1", "", 405),
            ("POST", "/api/worlds", "not json", 400),
            ("POST", "/api/worlds", "{}", 422),
            ("POST", "/api/worlds", r#"{"rows": []}"#, 400),
            ("POST", "/api/worlds", r#"{"rows": ["?"]}"#, 400),
        ];
        for (method, path, body, status) in cases {
            let answer = ask(&app, method, path, body).await;
            assert_eq!(answer.0, status, "{method} {path} {body}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn the_oldest_world_makes_room() {
        let app = router(Worlds::with_a_glider());
        for _ in 0..MOST_WORLDS {
            assert_eq!(ask(&app, "POST", "/api/worlds", r##"{"rows": ["#"]}"##).await.0, 201);
        }
        assert_eq!(ask(&app, "GET", "/api/worlds/1", "").await.0, 404);
        assert_eq!(ask(&app, "GET", "/api/worlds/2", "").await.0, 200);
    }

    #[tokio::test]
    async fn the_page_and_the_health_check_answer() {
        let app = router(Worlds::default());
        assert_eq!(ask(&app, "GET", "/", "").await.0, 200);
        assert_eq!(ask(&app, "GET", "/healthz", "").await.0, 200);
    }
}
