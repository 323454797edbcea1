package worldclock;

import java.time.Instant;
import java.time.LocalDateTime;
import java.time.ZoneId;
import java.time.ZonedDateTime;

/**
 * A moment that somebody named by the clock on their wall. Twice a year that clock lies: one hour
 * is skipped, and one hour comes twice.
 *
 * @param moment the moment itself
 * @param certainty whether the clock named exactly one moment
 */
record Meeting(Instant moment, Certainty certainty) {
    enum Certainty {
        /** The wall clock shows this time once. */
        EXACT,
        /** The wall clock never shows this time; it is taken as if it had not been put forward. */
        SKIPPED,
        /** The wall clock shows this time twice; the first is meant. */
        TWICE
    }

    /** The meeting at {@code at} by the clocks of {@code zone}. */
    static Meeting at(LocalDateTime at, ZoneId zone) {
        Certainty certainty = switch (zone.getRules().getValidOffsets(at).size()) {
            case 0 -> Certainty.SKIPPED;
            case 1 -> Certainty.EXACT;
            default -> Certainty.TWICE;
        };
        return new Meeting(ZonedDateTime.of(at, zone).toInstant(), certainty);
    }
}
