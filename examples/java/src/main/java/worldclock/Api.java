package worldclock;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.time.Clock;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The routes of the service.
 *
 * <pre>
 * GET    /                          the page
 * GET    /api/cities                what time it is in each city
 * PUT    /api/cities/NAME?zone=…    a city more
 * DELETE /api/cities/NAME           a city less
 * GET    /api/meeting?at=…&amp;zone=…   what time it will be in each city when it is `at` in `zone`
 * GET    /healthz                   ok
 * </pre>
 */
final class Api implements HttpHandler {
    private static final String ONE_CITY = "/api/cities/";
    private static final byte[] PAGE = resource("page.html");

    private final Cities cities;
    private final Clock clock;

    Api(Cities cities, Clock clock) {
        this.cities = cities;
        this.clock = clock;
    }

    /** What a request gets: a status, a type and a body. */
    private record Answer(int status, String type, byte[] body) {
        static Answer text(String text) {
            return new Answer(200, "text/plain", text.getBytes(StandardCharsets.UTF_8));
        }

        static Answer json(int status, Object value) {
            return new Answer(status, "application/json", Json.write(value).getBytes(StandardCharsets.UTF_8));
        }

        static Answer error(int status, String message) {
            return json(status, Map.of("error", message));
        }
    }

    @Override
    public void handle(HttpExchange exchange) throws IOException {
        try (exchange) {
            Answer answer;
            try {
                answer = route(exchange);
            } catch (IllegalArgumentException mistake) {
                answer = Answer.error(400, mistake.getMessage());
            }
            send(exchange, answer);
        }
    }

    private Answer route(HttpExchange exchange) {
        String method = exchange.getRequestMethod();
        String path = exchange.getRequestURI().getPath();
        Map<String, String> query = query(exchange.getRequestURI().getRawQuery());
        if (path.startsWith(ONE_CITY)) {
            return oneCity(method, path.substring(ONE_CITY.length()), query);
        }
        if (!method.equals("GET")) {
            return Answer.error(405, "method not allowed");
        }
        return switch (path) {
            case "/" -> new Answer(200, "text/html; charset=utf-8", PAGE);
            case "/healthz" -> Answer.text("ok\n");
            case "/api/cities" -> Answer.json(200, everywhere(clock.instant()));
            case "/api/meeting" -> meeting(query);
            default -> Answer.error(404, "no such page");
        };
    }

    private Answer oneCity(String method, String city, Map<String, String> query) {
        return switch (method) {
            case "PUT" -> {
                boolean isNew = cities.put(city, required(query, "zone"));
                yield Answer.json(isNew ? 201 : 200, Map.of("city", city));
            }
            case "DELETE" -> cities.remove(city)
                    ? new Answer(204, null, new byte[0])
                    : Answer.error(404, "no such city");
            default -> Answer.error(405, "method not allowed");
        };
    }

    private Answer meeting(Map<String, String> query) {
        ZoneId zone = Cities.zone(required(query, "zone"));
        Meeting meeting = Meeting.at(localTime(required(query, "at")), zone);
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("certainty", meeting.certainty().name().toLowerCase(Locale.ROOT));
        answer.put("cities", everywhere(meeting.moment()));
        return Answer.json(200, answer);
    }

    /** What the clocks of all cities show at that moment. */
    private List<Map<String, Object>> everywhere(Instant moment) {
        List<Map<String, Object>> all = new ArrayList<>();
        cities.all().forEach((city, zone) -> {
            var there = moment.atZone(zone).truncatedTo(ChronoUnit.SECONDS);
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("city", city);
            row.put("zone", zone.getId());
            row.put("time", there.toLocalDateTime().format(DateTimeFormatter.ISO_LOCAL_DATE_TIME));
            row.put("offset", there.getOffset().getId());
            all.add(row);
        });
        return all;
    }

    private static LocalDateTime localTime(String text) {
        try {
            return LocalDateTime.parse(text);
        } catch (DateTimeParseException malformed) {
            throw new IllegalArgumentException("`at` is a time such as 2026-03-29T09:30, not " + text, malformed);
        }
    }

    private static String required(Map<String, String> query, String name) {
        String value = query.get(name);
        if (value == null) {
            throw new IllegalArgumentException("the query needs `" + name + "`");
        }
        return value;
    }

    private static Map<String, String> query(String raw) {
        Map<String, String> query = new HashMap<>();
        for (String pair : raw == null ? new String[0] : raw.split("&")) {
            String[] parts = pair.split("=", 2);
            if (parts.length == 2) {
                query.put(parts[0], URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
            }
        }
        return query;
    }

    private static void send(HttpExchange exchange, Answer answer) throws IOException {
        if (answer.type() != null) {
            exchange.getResponseHeaders().set("Content-Type", answer.type());
        }
        // -1 means that there is no body; 0 would mean one of unknown length.
        exchange.sendResponseHeaders(answer.status(), answer.body().length == 0 ? -1 : answer.body().length);
        exchange.getResponseBody().write(answer.body());
    }

    private static byte[] resource(String name) {
        try (InputStream stream = Api.class.getResourceAsStream(name)) {
            return stream.readAllBytes();
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }
}
