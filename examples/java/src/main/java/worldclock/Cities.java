package worldclock;

import java.time.DateTimeException;
import java.time.ZoneId;
import java.util.Map;
import java.util.TreeMap;

/** The cities on the wall and their time zones, by name. Many requests may use it at once. */
final class Cities {
    private static final int LONGEST_NAME = 60;

    private final Map<String, ZoneId> zones = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);

    /**
     * Puts a city on the wall, or moves it to another zone.
     *
     * @return whether it is new
     * @throws IllegalArgumentException if the name is none or the zone is unknown
     */
    synchronized boolean put(String city, String zone) {
        if (city.isBlank() || city.length() > LONGEST_NAME) {
            throw new IllegalArgumentException("a city has a name of 1 to " + LONGEST_NAME + " characters");
        }
        return zones.put(city, zone(zone)) == null;
    }

    /** Takes a city off the wall; returns whether it was there. */
    synchronized boolean remove(String city) {
        return zones.remove(city) != null;
    }

    /** The wall as it is now, in the order of names. */
    synchronized Map<String, ZoneId> all() {
        return new TreeMap<>(zones);
    }

    /**
     * The time zone of that name, such as {@code Asia/Tokyo}.
     *
     * @throws IllegalArgumentException if there is none
     */
    static ZoneId zone(String name) {
        try {
            return ZoneId.of(name);
        } catch (DateTimeException unknown) {
            throw new IllegalArgumentException("no such time zone: " + name, unknown);
        }
    }
}
