import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.scheduling.annotation.EnableScheduling;

/** EHRbase's modules → a running server: what the application does that is not published with them. */
@EnableScheduling
@SpringBootApplication(
    scanBasePackages = "org.ehrbase.configuration",
    excludeName = {
      "org.springframework.boot.autoconfigure.security.servlet.SecurityAutoConfiguration",
      "org.springframework.boot.actuate.autoconfigure.security.servlet.ManagementWebSecurityAutoConfiguration"
    })
public class Started {
  public static void main(String[] args) {
    SpringApplication.run(Started.class, args);
  }
}
