package worldclock;

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URL;
import java.time.Clock;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * A world clock: what time it is elsewhere, and what time it will be there when it is some time
 * here. Cities live in memory; a restart forgets them.
 *
 * <p>It listens on {@code $PORT} (default 8080) until SIGTERM or SIGINT. With {@code --health} it
 * asks a running one whether it is well, and says so by its exit status.
 */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8080"));
        if (arguments.length == 1 && arguments[0].equals("--health")) {
            System.exit(isHealthy(port) ? 0 : 1);
        }
        serve(port);
    }

    private static void serve(int port) throws IOException {
        Cities cities = new Cities();
        cities.put("Berlin", "Europe/Berlin");
        cities.put("Chicago", "America/Chicago");
        cities.put("Tokyo", "Asia/Tokyo");

        ExecutorService handlers = Executors.newFixedThreadPool(16);
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
        server.setExecutor(handlers);
        server.createContext("/", new Api(cities, Clock.systemUTC()));
        server.start();
        System.out.println("world clock listens on port " + port);

        Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(server, handlers)));
    }

    /**
     * Lets the requests that are under way finish. {@link HttpServer#stop} alone would not do: in
     * JDK 17 it sleeps for as long as it may, even when nothing is under way.
     */
    private static void stop(HttpServer server, ExecutorService handlers) {
        System.out.println("shutting down");
        handlers.shutdown();
        try {
            handlers.awaitTermination(5, TimeUnit.SECONDS);
        } catch (InterruptedException impatient) {
            Thread.currentThread().interrupt();
        }
        server.stop(0);
    }

    private static boolean isHealthy(int port) {
        try {
            URL address = new URL("http", "127.0.0.1", port, "/healthz");
            HttpURLConnection connection = (HttpURLConnection) address.openConnection();
            connection.setConnectTimeout(2000);
            connection.setReadTimeout(2000);
            return connection.getResponseCode() == 200;
        } catch (IOException unreachable) {
            System.err.println(unreachable.getMessage());
            return false;
        }
    }
}
