package drivetrain.peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;

/** Jackson's streaming parser: nothing is bound, fields that the job does not need are skipped. One for each thread. */
public final class Parser {
    private final JsonFactory factory =
            JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build();

    /** Fills in everything but the vehicle, which is the record's key. */
    public void parse(byte[] json, Reading into) throws IOException {
        into.trip = null;
        try (JsonParser parser = factory.createParser(json)) {
            parser.nextToken();
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String name = parser.currentName();
                parser.nextToken();
                switch (name) {
                    case "trip_id" -> into.trip = parser.getText();
                    case "at" -> into.at = time(parser.getTextCharacters(), parser.getTextOffset(), parser.getTextLength());
                    case "speed_kmh" -> into.speed = parser.getDoubleValue();
                    case "g_force_long" -> into.gForceLong = parser.getDoubleValue();
                    default -> parser.skipChildren();
                }
            }
        }
    }

    /** RFC 3339 in UTC with milliseconds, {@code 2026-05-01T08:00:00.000Z}, ms since 1970. */
    static long time(char[] text, int from, int length) throws IOException {
        if (length != 24 || text[from + 10] != 'T' || text[from + 23] != 'Z') {
            throw new IOException("not a time: " + new String(text, from, length));
        }
        int year = number(text, from, 4);
        int month = number(text, from + 5, 2);
        int day = number(text, from + 8, 2);
        // Days since 1970 in the proleptic Gregorian calendar.
        int y = month <= 2 ? year - 1 : year;
        int dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
        long days = y * 365L + y / 4 - y / 100 + y / 400 + dayOfYear - 719_468;
        long seconds = number(text, from + 11, 2) * 3_600L + number(text, from + 14, 2) * 60L + number(text, from + 17, 2);
        return (days * 86_400 + seconds) * 1_000 + number(text, from + 20, 3);
    }

    private static int number(char[] text, int from, int digits) throws IOException {
        int value = 0;
        for (int i = from; i < from + digits; i++) {
            int digit = text[i] - '0';
            if (digit < 0 || digit > 9) {
                throw new IOException("not a digit in a time: " + text[i]);
            }
            value = value * 10 + digit;
        }
        return value;
    }
}
