package worldclock;

import com.sun.net.httpserver.HttpServer;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.time.Clock;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.ZoneId;
import java.time.ZoneOffset;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** All tests, and the few lines that run them: the JDK brings no test framework. */
public final class Tests {
    private Tests() {}

    private interface Test {
        void run() throws Exception;
    }

    public static void main(String[] arguments) {
        Map<String, Test> tests = new LinkedHashMap<>();
        tests.put("JSON escapes what it must", Tests::jsonEscapesWhatItMust);
        tests.put("an ordinary time is exact", Tests::anOrdinaryTimeIsExact);
        tests.put("the hour that is skipped is told", Tests::theHourThatIsSkippedIsTold);
        tests.put("the hour that comes twice is told", Tests::theHourThatComesTwiceIsTold);
        tests.put("cities come and go", Tests::citiesComeAndGo);
        tests.put("a meeting is told for every city", Tests::aMeetingIsToldForEveryCity);
        tests.put("each mistake has its status", Tests::eachMistakeHasItsStatus);
        tests.put("the page and the health check answer", Tests::thePageAndTheHealthCheckAnswer);

        int failed = 0;
        for (Map.Entry<String, Test> test : tests.entrySet()) {
            try {
                test.getValue().run();
                System.out.println("ok    " + test.getKey());
            } catch (Exception | AssertionError failure) {
                failed++;
                System.out.println("FAIL  " + test.getKey() + ": " + failure);
            }
        }
        System.out.printf("%d tests, %d failed%n", tests.size(), failed);
        System.exit(failed == 0 ? 0 : 1);
    }

    private static void jsonEscapesWhatItMust() {
        Map<String, Object> value = new LinkedHashMap<>();
        value.put("quote\"", "back\\slash\n");
        value.put("list", List.of(1, true, "ü"));
        value.put("nothing", Map.of());
        expect("{\"quote\\\"\":\"back\\\\slash\\u000a\",\"list\":[1,true,\"ü\"],\"nothing\":{}}", Json.write(value));
    }

    private static final ZoneId BERLIN = ZoneId.of("Europe/Berlin");

    private static void anOrdinaryTimeIsExact() {
        expect(
                new Meeting(Instant.parse("2026-01-15T08:30:00Z"), Meeting.Certainty.EXACT),
                Meeting.at(LocalDateTime.parse("2026-01-15T09:30"), BERLIN));
    }

    private static void theHourThatIsSkippedIsTold() {
        expect(
                new Meeting(Instant.parse("2026-03-29T01:30:00Z"), Meeting.Certainty.SKIPPED),
                Meeting.at(LocalDateTime.parse("2026-03-29T02:30"), BERLIN));
    }

    private static void theHourThatComesTwiceIsTold() {
        expect(
                new Meeting(Instant.parse("2026-10-25T00:30:00Z"), Meeting.Certainty.TWICE),
                Meeting.at(LocalDateTime.parse("2026-10-25T02:30"), BERLIN));
    }

    private static void citiesComeAndGo() throws Exception {
        try (Service service = new Service()) {
            expect("201 {\"city\":\"New York\"}", service.ask("PUT", "/api/cities/New%20York?zone=America/New_York"));
            expect("200 {\"city\":\"new york\"}", service.ask("PUT", "/api/cities/new%20york?zone=America/New_York"));
            expect(
                    "200 [{\"city\":\"New York\",\"zone\":\"America/New_York\","
                            + "\"time\":\"2026-01-15T07:00:00\",\"offset\":\"-05:00\"}]",
                    service.ask("GET", "/api/cities"));
            expect("204 ", service.ask("DELETE", "/api/cities/New%20York"));
            expect("200 []", service.ask("GET", "/api/cities"));
        }
    }

    private static void aMeetingIsToldForEveryCity() throws Exception {
        try (Service service = new Service()) {
            service.ask("PUT", "/api/cities/Tokyo?zone=Asia/Tokyo");
            expect(
                    "200 {\"certainty\":\"exact\",\"cities\":[{\"city\":\"Tokyo\",\"zone\":\"Asia/Tokyo\","
                            + "\"time\":\"2026-01-15T17:30:00\",\"offset\":\"+09:00\"}]}",
                    service.ask("GET", "/api/meeting?at=2026-01-15T09:30&zone=Europe/Berlin"));
        }
    }

    private static void eachMistakeHasItsStatus() throws Exception {
        Map<String, Integer> cases = new LinkedHashMap<>();
        cases.put("GET /nowhere", 404);
        cases.put("POST /", 405);
        cases.put("POST /api/cities/Tokyo", 405);
        cases.put("DELETE /api/cities/Atlantis", 404);
        cases.put("PUT /api/cities/Tokyo", 400);
        cases.put("PUT /api/cities/Tokyo?zone=Asia/Edo", 400);
        cases.put("PUT /api/cities/?zone=Asia/Tokyo", 400);
        cases.put("PUT /api/cities/" + "x".repeat(61) + "?zone=Asia/Tokyo", 400);
        cases.put("GET /api/meeting?zone=Asia/Tokyo", 400);
        cases.put("GET /api/meeting?zone=Asia/Tokyo&at=noon", 400);
        cases.put("GET /api/meeting?zone=%zz&at=2026-01-15T09:30", 400);
        try (Service service = new Service()) {
            for (Map.Entry<String, Integer> c : cases.entrySet()) {
                String[] request = c.getKey().split(" ");
                String answer = service.ask(request[0], request[1]);
                if (!answer.startsWith(c.getValue() + " ")) {
                    throw new AssertionError(c.getKey() + " gave " + answer);
                }
            }
        }
    }

    private static void thePageAndTheHealthCheckAnswer() throws Exception {
        try (Service service = new Service()) {
            expect("200 ok\n", service.ask("GET", "/healthz"));
            expect(true, service.ask("GET", "/").contains("<title>World clock</title>"));
        }
    }

    private static void expect(Object expected, Object actual) {
        if (!expected.equals(actual)) {
            throw new AssertionError("expected " + expected + ", got " + actual);
        }
    }

    /** A service of its own for one test, on some free port, where it is always the same noon. */
    private static final class Service implements AutoCloseable {
        private final HttpServer server;

        Service() throws Exception {
            Clock noon = Clock.fixed(Instant.parse("2026-01-15T12:00:00Z"), ZoneOffset.UTC);
            server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
            server.createContext("/", new Api(new Cities(), noon));
            server.start();
        }

        /** Sends a request without a body; returns the status, a blank and the body. */
        String ask(String method, String path) throws Exception {
            URL address = new URL("http", "127.0.0.1", server.getAddress().getPort(), path);
            HttpURLConnection connection = (HttpURLConnection) address.openConnection();
            connection.setRequestMethod(method);
            int status = connection.getResponseCode();
            try (InputStream body = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
                return status + " " + new String(body.readAllBytes(), StandardCharsets.UTF_8);
            }
        }

        @Override
        public void close() {
            server.stop(0);
        }
    }
}
