import org.apache.kafka.common.utils.Exit;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Runs Apache Kafka's command-line tools one after the other in one process, which saves each of them the start of
 * a machine of its own. A line on standard input is a class and its arguments with tabs between them; the answer is a
 * line with the exit code and the number of bytes that follow, which are what the tool printed.
 */
public class Tools {
    private static final class Exited extends Error {
        final int code;

        Exited(int code) {
            super(null, null, false, false);
            this.code = code;
        }
    }

    /** What ended the tool first: some catch it, say so, and end once more. */
    private static Exited exited;
    private static int length;
    private static ByteArrayOutputStream said;

    private static synchronized void exit(int code) {
        if (exited == null) {
            System.out.flush();
            length = said.size();
            exited = new Exited(code);
        }
        throw exited;
    }

    public static void main(String[] none) throws Exception {
        PrintStream out = System.out;
        Exit.setExitProcedure((code, message) -> exit(code));
        Exit.setHaltProcedure((code, message) -> exit(code));
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] command = line.split("\t", -1);
            said = new ByteArrayOutputStream();
            exited = null;
            PrintStream both = new PrintStream(said, true, StandardCharsets.UTF_8);
            System.setOut(both);
            System.setErr(both);
            int code = run(command[0], Arrays.copyOfRange(command, 1, command.length));
            both.flush();
            if (exited == null) {
                length = said.size();
            }
            out.println((exited == null ? code : exited.code) + " " + length);
            out.write(said.toByteArray(), 0, length);
            out.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    private static int run(String name, String[] args) throws Exception {
        try {
            Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) args);
            return 0;
        } catch (InvocationTargetException e) {
            if (!(e.getCause() instanceof Exited)) {
                e.getCause().printStackTrace();
            }
            return 1;
        }
    }
}
