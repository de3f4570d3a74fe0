import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/** JSON objects on standard output, one a line. Each leaves the process whole and at once. */
final class Lines {
    static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false);

    private Lines() {}

    static ObjectNode object() {
        return JSON.createObjectNode();
    }

    static void print(ObjectNode line) {
        try {
            byte[] bytes = (JSON.writeValueAsString(line) + "\n").getBytes(StandardCharsets.UTF_8);
            OUT.write(bytes, 0, bytes.length); // unbuffered: one write, whichever thread prints
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
