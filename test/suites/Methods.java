import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

import java.util.Arrays;
import java.util.stream.Stream;

/** Prints the test methods of classes, a line each, in the form in which JUnit selects one: CLASS#METHOD(PARAMETERS). */
public class Methods {
    public static void main(String[] classes) {
        var request = LauncherDiscoveryRequestBuilder.request()
            .selectors(Arrays.stream(classes).map(DiscoverySelectors::selectClass).toList())
            .build();
        var plan = LauncherFactory.create().discover(request);
        plan.getRoots().stream()
            .flatMap(root -> plan.getDescendants(root).stream())
            .flatMap(test -> test.getSource().stream())
            .flatMap(source -> source instanceof MethodSource m ? Stream.of(m) : Stream.empty())
            .map(m -> m.getClassName() + "#" + m.getMethodName() + "(" + m.getMethodParameterTypes().replace(" ", "") + ")")
            .distinct().sorted().forEach(System.out::println);
        System.exit(0); // discovery may have started threads
    }
}
